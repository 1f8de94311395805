"""The doctor on machines that lack something: one paragraph, the exact line to type, exit 2."""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import doctor

SCRIPT = Path(doctor.__file__)


def _without(monkeypatch: pytest.MonkeyPatch, *sonames: str) -> None:
    real = ctypes.CDLL

    def load(name, *args, **kwargs):
        if name in sonames:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(ctypes, "CDLL", load)


def test_top_level_imports_are_standard_library_only():
    tree = ast.parse(SCRIPT.read_text())
    names = {a.name for n in tree.body if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module or "" for n in tree.body if isinstance(n, ast.ImportFrom)}
    assert {n.split(".")[0] for n in names} <= sys.stdlib_module_names


def test_it_runs_as_a_script_without_site_packages():
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(SCRIPT), "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "--system" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="library names are Linux's")
def test_missing_libraries_end_in_one_paragraph_with_the_apt_line(monkeypatch, capsys):
    _without(monkeypatch, "libXi.so.6", "libSM.so.6")
    assert doctor.main(["--system"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    line = re.search(r"'(?:sudo )?apt-get install -y ([^']+)'", err)
    assert line is not None
    assert {"libsm6", "libxi6"} <= set(line.group(1).split())
    assert "libXi.so.6" in err
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform != "linux", reason="library names are Linux's")
def test_a_missing_optional_library_is_a_note_and_not_a_failure(monkeypatch):
    _without(monkeypatch, "libEGL.so.1")
    check = next(c for c in doctor.system() if c.name == "libEGL.so.1")
    assert check.status == doctor.NOTE
    assert "libegl1" not in doctor.remedy([check])


def test_another_python_is_refused_with_the_way_out():
    check = doctor._python((3, 12, 1))
    assert check.status == doctor.MISSING
    text = doctor.remedy([check])
    assert "python3.11 python3.11-venv" in text
    assert "PYTHON=" in text


def test_missing_compiler_and_ensurepip_name_their_packages(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "ensurepip" else real(n, *a))
    text = doctor.remedy([doctor._compiler(), doctor._venv()])
    assert "build-essential python3.11-venv" in text


def test_who_is_not_root_is_told_sudo(monkeypatch):
    missing = [doctor.Check("libXi.so.6", doctor.MISSING, "", ("libxi6",))]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "sudo apt-get install -y libxi6" in doctor.remedy(missing)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "sudo" not in doctor.remedy(missing)


def test_nothing_missing_says_nothing():
    assert doctor.remedy([doctor.Check("cores", doctor.OK, "2")]) == ""


def test_the_full_report_covers_machine_weights_and_versions(monkeypatch, tmp_path):
    hub = tmp_path / "hub"
    (hub / "models--hustvl--yolos-tiny").mkdir(parents=True)
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    checks = {c.name: c for c in doctor.report()}
    assert {"cores", "memory", "disk", "GPU", "hub weights", "people cache", "numpy", "browser"} <= set(checks)
    assert "hustvl/yolos-tiny" in checks["hub weights"].detail
    assert checks["numpy"].status == doctor.OK


def test_a_container_limit_counts_as_the_number_of_cores(monkeypatch):
    monkeypatch.setattr(doctor, "_words", lambda path: ["50000", "100000"] if path.endswith("cpu.max") else [])
    assert doctor._cores() == 0.5
