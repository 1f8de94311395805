# Each target works as the first command on a fresh machine; .venv is made once and again only when its inputs change.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One Blender or torch process per core: threads inside libraries would only fight over the cores.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test check soak setup clean
demo: setup
	$(BIN)/maquette run manifests/jobs/quickstart.yaml

test: setup
	$(BIN)/python -m pytest -m "not soak" -n 2 --dist loadgroup

soak: setup
	$(BIN)/python -m pytest --timeout 7200 -m soak

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt pipeline/doctor.py
	@command -v $(PYTHON) >/dev/null || { echo "maquette needs Python 3.11 (bpy has wheels for no other): on Debian or Ubuntu run 'apt-get install python3.11 python3.11-venv', or give PYTHON=/path/to/python3.11."; exit 2; }
	@$(PYTHON) pipeline/doctor.py --system
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[all]" -c constraints.txt
	@touch $(STAMP)

clean:
	rm -rf $(VENV) runs
