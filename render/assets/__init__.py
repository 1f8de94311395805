"""A job's asset settings -> the source that lists and loads its people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from manifests.assets import AnnySource, ScanSource
from render.scene import PersonMesh


class Source(Protocol):
    """What every file in this folder offers."""

    def identities(self) -> list[tuple[str, str, str]]:
        """(identity id, key for ``load``, sha256 of what defines it)."""

    def load(self, key: str, rng: np.random.Generator) -> PersonMesh:
        """One person at the origin: feet on z = 0, facing -y, metres; the pose is drawn from ``rng``."""


def source_of(settings: AnnySource | ScanSource, people_seed: int, root: Path, reader: Any = None) -> Source:
    """The source behind ``settings``; heavy libraries load with the first person, not here.

    ``reader``: files.Reader for scans, instead of Blender's.
    """
    return SOURCES[settings.source](settings, people_seed, root, reader)


def _anny(settings: Any, people_seed: int, root: Path, reader: Any) -> Source:
    from render.assets.anny import AnnyPeople

    return AnnyPeople(settings, people_seed, root)


def _files(settings: Any, people_seed: int, root: Path, reader: Any) -> Source:
    from render.assets.files import ScanFiles

    return ScanFiles(settings, root, reader)


def _renderpeople(settings: Any, people_seed: int, root: Path, reader: Any) -> Source:
    from render.assets.renderpeople import RenderPeople

    return RenderPeople(settings, root, reader)


def _thuman(settings: Any, people_seed: int, root: Path, reader: Any) -> Source:
    from render.assets.thuman import Thuman

    return Thuman(settings, root, reader)


SOURCES: dict[str, Callable[[Any, int, Path, Any], Source]] = {
    "anny": _anny,
    "files": _files,
    "renderpeople": _renderpeople,
    "thuman": _thuman,
}
