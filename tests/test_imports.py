"""Imports go one way, and each package imports without what it does not need."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("manifests", "render", "curation", "training", "pipeline")
ALLOWED = {
    "manifests": {"manifests"},
    "render": {"manifests", "render"},
    "curation": {"manifests", "curation"},
    "training": {"manifests", "training"},
    "pipeline": set(PACKAGES),
}
TRAINING_READS = {"sample", "codecs", "shards", "dataset", "errors", "frames", "photo", "seeds", "view"}
TRAINING_READS |= {"keypoints", "parts"}
# Engines that must never load as a side effect of importing our modules, and the one place each may stand.
HOME = {"bpy": ("render/blender/",), "ray": ("pipeline/",)}
LAZY_ONLY = {"torch": ("training/",)}


def modules() -> list[Path]:
    return sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> list[tuple[str, bool]]:
    """(dotted name, at top level) of every import in a file."""
    tree = ast.parse(path.read_text())
    top = {id(n) for n in tree.body}
    for node in tree.body:
        if isinstance(node, ast.Try):
            top |= {id(n) for n in node.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(a.name, id(node) in top) for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found += [(f"{node.module}.{a.name}", id(node) in top) for a in node.names]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    where = path.relative_to(ROOT).as_posix()
    package = where.split("/")[0]
    for name, at_top in imports(path):
        root, *rest = name.split(".")
        if root in PACKAGES:
            assert root in ALLOWED[package], f"{where} imports {name}"
        if package == "training" and root == "manifests":
            assert rest[0] in TRAINING_READS, f"{where} imports {name}"
        if root in HOME:
            assert where.startswith(HOME[root]), f"{where} imports {name}"
        if root in LAZY_ONLY and at_top:
            assert where.startswith(LAZY_ONLY[root]), f"{where} imports {name} at top level"


BLOCK = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocker())
import importlib, pkgutil
for package in {packages!r}:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


def run_blocked(packages: list[str], blocked: list[str]) -> None:
    code = BLOCK.format(packages=packages, blocked=set(blocked))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_manifests_curation_and_training_import_without_bpy_and_ray():
    run_blocked(["manifests", "curation", "training"], ["bpy", "ray"])


def test_manifests_import_without_any_engine():
    run_blocked(["manifests"], ["bpy", "ray", "torch"])


def test_training_imports_on_a_bare_gpu_machine():
    run_blocked(["training"], ["bpy", "ray", "pydantic", "zstandard", "simplejpeg", "datasets", "transformers"])


def test_help_loads_no_engine():
    code = (
        "import sys; from pipeline import cli\n"
        "assert not {'bpy', 'ray', 'torch', 'pyarrow', 'matplotlib'} & set(sys.modules), set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
