"""README agrees with the code."""

import ast
import importlib
import re

import pytest
import yaml

from manifests import job, sample
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_the_sample_table_is_the_one_the_schema_is_derived_from():
    assert sample.markdown_table("rendered") in README


def test_the_job_in_the_readme_is_valid(tmp_path):
    block = re.search(r"```yaml\n(.*?)```", README, re.S)
    assert block
    path = tmp_path / "job.yaml"
    path.write_text(block.group(1))
    assert job.load(path).render is not None


def test_every_section_of_a_job_in_the_readme_is_valid():
    for block in re.findall(r"```yaml\n(.*?)```", README, re.S):
        tree = yaml.safe_load(block)
        if tree.keys() & set(job.Job.model_fields):
            job.check({"name": "t"} | tree)


def test_every_command_in_the_readme_exists():
    from pipeline.cli import app

    known = {c.name or c.callback.__name__ for c in app.registered_commands} | {g.name for g in app.registered_groups}
    named = set(re.findall(r"^(?:\.venv/bin/)?maquette (\w+)", README, re.M))
    assert named
    assert named <= known


HOUSE = {"manifests", "render", "curation", "training", "pipeline"}


@pytest.mark.parametrize(
    "script", sorted(p for d in ("benchmarks", "docs") for p in (ROOT / d).rglob("*.py")), ids=lambda p: p.name
)
def test_scripts_find_what_they_import(script):
    """Scripts outside the packages are run by hand: a name that moved would be missed until then."""
    wanted = [n for n in ast.walk(ast.parse(script.read_text())) if isinstance(n, ast.ImportFrom)]
    wanted = [n for n in wanted if n.module and n.module.split(".")[0] in HOUSE]
    for node in wanted:
        module = importlib.import_module(node.module)
        for name in node.names:
            assert hasattr(module, name.name) or importlib.import_module(f"{node.module}.{name.name}")
