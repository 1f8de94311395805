"""A machine -> a list of checks, and one paragraph on what to install; stdlib only: it runs before .venv exists."""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

OK, NOTE, MISSING = "ok", "note", "missing"
BAD_MACHINE = 2
# Soname -> Debian/Ubuntu package. bpy's wheel links all of these although it never opens a window.
LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libX11.so.6": "libx11-6",
    "libXi.so.6": "libxi6",
    "libXrender.so.1": "libxrender1",
    "libXfixes.so.3": "libxfixes3",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libSM.so.6": "libsm6",
    "libICE.so.6": "libice6",
}
# Only the fast previews (pyrender) draw through EGL.
OPTIONAL_LIBRARIES = {"libEGL.so.1": "libegl1"}
COMPILERS = ("cc", "gcc", "clang")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = (
    *("bpy", "numpy", "torch", "ray", "pyarrow", "datasets", "embreex", "OpenEXR", "anny"),
    *("opencv-python-headless", "onnxruntime", "transformers", "simplejpeg"),
)
DISK_GB, MEMORY_GB, SHM_GB = 8.0, 6.0, 1.0
SMI_TIMEOUT_S = 20


@dataclasses.dataclass(frozen=True)
class Check:
    """One line. ``status``: ok, note (works without) or missing; ``packages``: what apt-get would install."""

    name: str
    status: str
    detail: str
    packages: tuple[str, ...] = ()


def report() -> list[Check]:
    """Every check: system, resources, accelerator, weights and caches, package versions, browser."""
    return [*system(), *_resources(), _gpu(), *_caches(), *_packages(), _browser()]


def system() -> list[Check]:
    """What must be there before set-up: Python 3.11, venv, a C compiler, the libraries that bpy links."""
    checks = [_python(sys.version_info[:3]), _venv(), _compiler()]
    if sys.platform != "linux":
        return [*checks, Check("libraries", NOTE, f"not checked on {sys.platform}: bpy's wheel brings its own there")]
    checks += [_library(soname, package, MISSING) for soname, package in LIBRARIES.items()]
    return checks + [_library(soname, package, NOTE) for soname, package in OPTIONAL_LIBRARIES.items()]


def remedy(checks: Iterable[Check]) -> str:
    """One paragraph that names what is missing and the exact line that installs it; empty when nothing is."""
    missing = [c for c in checks if c.status == MISSING]
    if not missing:
        return ""
    packages = sorted({p for c in missing for p in c.packages})
    text = "maquette cannot be set up on this machine yet; missing: " + ", ".join(c.name for c in missing) + "."
    if packages:
        sudo = "" if not hasattr(os, "geteuid") or os.geteuid() == 0 else "sudo "
        text += (
            f" On Debian or Ubuntu run '{sudo}apt-get install -y {' '.join(packages)}' (after '{sudo}apt-get update'),"
        )
        text += " then give the same command again."
    if any(c.name == "Python 3.11" for c in missing):
        text += (
            " bpy has wheels for Python 3.11 alone; give one that lies elsewhere as 'make PYTHON=/path/to/python3.11'."
        )
    return text


def main(argv: list[str]) -> int:
    """``--system``: what set-up needs, silent when all is there; without it all. Returns 0, or 2: something misses."""
    parser = argparse.ArgumentParser(prog="maquette doctor", description="What this machine has and lacks.")
    parser.add_argument("--system", action="store_true", help="only what set-up needs; silent when all is there")
    only_system = parser.parse_args(argv).system
    checks = system() if only_system else report()
    if not only_system:
        width = max(len(c.name) for c in checks)
        marks = {OK: "ok     ", NOTE: "note   ", MISSING: "MISSING"}
        sys.stdout.writelines(f"{marks[c.status]}  {c.name:<{width}}  {c.detail}\n" for c in checks)
    paragraph = remedy(checks)
    if paragraph:
        sys.stdout.flush()
        sys.stderr.write(paragraph + "\n")
    return BAD_MACHINE if paragraph else 0


def _python(version: tuple[int, ...]) -> Check:
    shown = ".".join(map(str, version))
    if version[:2] == (3, 11):
        return Check("Python 3.11", OK, f"{shown} at {sys.executable}")
    return Check("Python 3.11", MISSING, f"this is {shown} at {sys.executable}", ("python3.11", "python3.11-venv"))


def _venv() -> Check:
    # Debian splits ensurepip out of the interpreter's package: `import venv` works there, `python -m venv` does not.
    absent = [m for m in ("venv", "ensurepip") if importlib.util.find_spec(m) is None]
    if absent:
        return Check("the venv module", MISSING, f"Python lacks {', '.join(absent)}", ("python3.11-venv",))
    return Check("the venv module", OK, "venv and ensurepip")


def _compiler() -> Check:
    found = next(filter(None, map(shutil.which, COMPILERS)), None)
    if found:
        return Check("a C compiler", OK, found)
    return Check("a C compiler", MISSING, f"none of {', '.join(COMPILERS)} on PATH", ("build-essential",))


def _library(soname: str, package: str, when_absent: str) -> Check:
    try:
        ctypes.CDLL(soname)
    except OSError as error:
        why = str(error) if when_absent == MISSING else f"only fast previews need it: apt-get install {package}"
        return Check(soname, when_absent, why, (package,))
    return Check(soname, OK, "loads")


def _resources() -> list[Check]:
    cores, memory = _cores(), _memory_gb()
    checks = [
        Check("cores", OK, f"{cores:g} usable by this process"),
        _enough("memory", memory, MEMORY_GB, "use fewer render.workers (about 2 GB each)"),
        _enough("disk", _free_gb(Path.cwd()), DISK_GB, "set `runs` to a larger disk", f"free under {Path.cwd()}"),
    ]
    shm = Path("/dev/shm")
    if shm.is_dir():
        checks.append(
            _enough(
                "shared memory",
                _free_gb(shm),
                SHM_GB,
                "Ray and Blender go through the disk instead",
                "free in /dev/shm",
            )
        )
    return checks


def _enough(name: str, have_gb: float, want_gb: float, otherwise: str, what: str = "in all") -> Check:
    if have_gb >= want_gb:
        return Check(name, OK, f"{have_gb:.1f} GB {what}")
    return Check(name, NOTE, f"{have_gb:.1f} GB {what}, {want_gb:g} GB is comfortable: {otherwise}")


def _free_gb(folder: Path) -> float:
    return shutil.disk_usage(folder).free / 1e9


def _cores() -> float:
    cores: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _words("/sys/fs/cgroup/cpu.max")  # a container's limit, which the affinity mask does not show
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, int(quota[0]) / int(quota[1]))
    return cores


def _memory_gb() -> float:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _words("/sys/fs/cgroup/memory.max")
    if limit and limit[0].isdigit():
        total = min(total, int(limit[0]))
    return total / 1e9


def _words(path: str) -> list[str]:
    try:
        return Path(path).read_text().split()
    except OSError:
        return []


def _gpu() -> Check:
    smi = shutil.which("nvidia-smi")
    if not smi:
        return Check("GPU", NOTE, "no nvidia-smi: Cycles and PyTorch run on the CPU")
    query = [smi, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=SMI_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Check("GPU", NOTE, f"nvidia-smi does not answer ({error}): work runs on the CPU")
    cards = "; ".join(line.strip() for line in answer.splitlines() if line.strip()) or "none listed"
    return Check("GPU", OK, f"{cards}; {_torch_cuda()}")


def _torch_cuda() -> str:
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    try:
        import torch
    except (ImportError, OSError) as error:  # a broken CUDA library set surfaces as OSError
        return f"PyTorch does not import: {error}"
    return "PyTorch sees it" if torch.cuda.is_available() else "this PyTorch build does not use it"


def _caches() -> list[Check]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or cache / "huggingface") / "hub")
    models = sorted(p.name.removeprefix("models--").replace("--", "/") for p in hub.glob("models--*"))
    return [
        _folder(
            "people cache",
            (Path.home() / ".cache" / "anny", cache / "maquette"),
            "first use builds it (about a minute)",
        ),
        Check("hub weights", OK if models else NOTE, f"{', '.join(models) or 'none'} in {hub}"),
        _inside("environment maps", "bpy", "**/studiolights/world/*.exr", "come with extra `render`"),
        _inside("face cascade", "cv2", "data/haarcascade_frontalface*.xml", "comes with opencv-python-headless"),
    ]


def _folder(name: str, candidates: tuple[Path, ...], otherwise: str) -> Check:
    sizes = {p: sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) / 1e6 for p in candidates if p.is_dir()}
    found = ", ".join(f"{p} ({size:.0f} MB)" for p, size in sizes.items() if size > 0)
    return Check(name, OK, found) if found else Check(name, NOTE, f"empty: {otherwise}")


def _inside(name: str, package: str, pattern: str, otherwise: str) -> Check:
    """Files that arrive inside an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    roots = spec.submodule_search_locations if spec else None
    count = sum(1 for root in roots or () for _ in Path(root).glob(pattern))
    return Check(name, OK, f"{count} inside {package}") if count else Check(name, NOTE, f"none: {otherwise}")


def _packages() -> list[Check]:
    checks = []
    for name in PACKAGES:
        try:
            checks.append(Check(name, OK, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            checks.append(Check(name, NOTE, "not installed: `make setup`, or the extra that holds it"))
    return checks


def _browser() -> Check:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return (
        Check("browser", OK, found) if found else Check("browser", NOTE, "no Chromium: the report's browser tests skip")
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
