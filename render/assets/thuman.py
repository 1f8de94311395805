"""THuman2.x scans -> people in metres, by the scale of the SMPL-X fit beside each.

NNNN/NNNN.obj with material0.mtl; y up, no unit: the same person may be 1.0 or 0.58 high. A fit says how large a body in
metres is in the scan's numbers, so metres are the scan's numbers divided by the fit's `scale`.
"""

from __future__ import annotations

import io
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from manifests.assets import ThumanSource
from manifests.errors import AssetError, InputError
from render.assets.files import ScanFiles, find
from render.assets.stand import Custom

NAMES = ("smplx_param.pkl", "smplx_param.json")
MAX_FIT_BYTES = 4_000_000


class Thuman(ScanFiles):
    """One person per folder of digits; ids are thuman/NNNN."""

    def find(self, root: Path) -> list[tuple[str, Path]]:
        """(id, OBJ) of every scan; the bodies of fits (mesh_smplx.obj) are none. Raises InputError."""
        found = [p for p in find(self.source.paths, root, (".obj",)) if is_scan(p)]
        if not found:
            where = ", ".join(self.source.paths)
            raise InputError(f"render.assets.paths: {where}: no NNNN/NNNN.obj; use source: files for others")
        return [(f"thuman/{p.stem}", p) for p in found]

    def colour(self, path: Path) -> Path | None:
        """material0.jpeg beside the mesh, for one that came without its MTL."""
        names = ("material0.jpeg", "material0.jpg", "material0.png")
        return next((f for n in names if (f := path.parent / n).is_file() and not f.is_symlink()), None)

    def extras(self, path: Path) -> list[Path]:
        """Also the fit, which the scale is from."""
        fit = self._fit(path)
        return [*super().extras(path), *([fit] if fit else [])]

    def custom(self, name: str, path: Path) -> Custom:
        """Metres from the fit. Raises AssetError where there is none and the job says no unit."""
        fit = self._fit(path)
        if fit is None:
            if self.source.unit != "auto":
                return Custom(up="y", says="THuman")
            raise AssetError(
                name, f"no unit: no {NAMES[0]} of {path.stem} beside it or in fits; set fits, or unit", "no_unit"
            )
        return Custom(scale_m=1 / fit_scale(name, fit), up="y", says="from the fit")

    def _fit(self, path: Path) -> Path | None:
        """The scan's fit: in the folder the job names, beside the scan, or NNNN/ under a sibling called ...smplx..."""
        places = [path.parent]
        given = self.source.fits if isinstance(self.source, ThumanSource) else None
        if given:
            places.insert(0, self.root / given / path.stem)
        library = path.parent.parent
        for level in (library, library.parent):
            places += sorted(
                p / path.stem for p in level.iterdir() if p.is_dir() and re.search("smpl-?x", p.name, re.I)
            )
        return next((f for place in places for n in NAMES if (f := place / n).is_file()), None)


def is_scan(path: Path) -> bool:
    """Whether ``path`` is called as THuman calls its scans: 0042/0042.obj."""
    return path.suffix.lower() == ".obj" and path.stem.isdigit() and path.parent.name == path.stem


def fit_scale(name: str, path: Path) -> float:
    """The `scale` of a fit file, scan numbers per metre. Raises AssetError."""
    try:
        if path.stat().st_size > MAX_FIT_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes, {MAX_FIT_BYTES} allowed")
        data = path.read_bytes()
        fit = json.loads(data) if path.suffix == ".json" else ArraysOnly(io.BytesIO(data)).load()
        scale = float(np.asarray(fit["scale"], np.float64).reshape(-1)[0])
        if not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"scale {scale}")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, pickle.UnpicklingError, MemoryError,
            OverflowError, RecursionError) as error:  # fmt: skip
        raise AssetError(
            name, f"{path.name}: no scale can be read ({error}); fetch the fit again, or set unit", "no_unit"
        ) from None
    return scale


class ArraysOnly(pickle.Unpickler):
    """Reads plain containers, numbers, strings and numpy arrays; anything else a pickle asks for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """The names that a pickled array needs, of numpy 1 and 2. Raises UnpicklingError."""
        part = module.replace("numpy._core", "numpy.core")
        if (part, name) in ALLOWED:
            return ALLOWED[part, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")


def _bytes(text: str, encoding: str) -> bytes:
    # Protocol 2 writes bytes as text that is to be encoded; only one encoding occurs.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for encoding {encoding}")
    return text.encode("latin1")


def _array(kind: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    # Always this empty array, whatever is asked: its state follows and is checked by numpy.
    return np.ndarray((0,), np.uint8)


def _buffer(data: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    # Protocol 5's arrays: no larger than the file, and frombuffer takes no objects.
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


def _number(dtype: np.dtype, data: bytes) -> Any:
    if dtype.hasobject:
        raise pickle.UnpicklingError("it asks for an object scalar")
    return np.frombuffer(data, dtype, 1)[0]


ALLOWED: dict[tuple[str, str], Any] = {
    # A word, not the class: it is only handed to _reconstruct, and must not be called with a shape of its own.
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy.core.numeric", "_frombuffer"): _buffer,
    ("_codecs", "encode"): _bytes,
}
