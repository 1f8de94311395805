"""Numbers of drawn people -> a folder of GLB "scans" with their labels beside them, for any other renderer.

    anny_000007.glb              the posed, dressed person: metres, y up, facing +z
    anny_000007.keypoints.yaml   its points where maquette's `files` libraries look for them
    anny_000007.json             keypoints of every set, class of every face, bones, phenotype, rights, seed
    people.jsonl                 one line a person

A person is there once its .json is: the same call again goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from manifests.assets import AnnySource
from manifests.errors import AssetError, InputError
from manifests.keypoints import SETS
from manifests.parts import CLASSES
from manifests.seeds import generator
from render.assets.anny import AnnyPeople
from render.assets.keypoints import ENDING
from render.people.glb import ATTRIBUTE, glb, y_up
from render.scene import PersonMesh
from render.strands import solid

INDEX = "people.jsonl"
FRAME = "glTF: x to the person's left, y up, z forward, metres"


def make(source: AnnySource, seed: int, folder: Path, root: Path = Path()) -> Iterator[tuple[str, str | None]]:
    """Write ``source.count`` people of ``seed`` into ``folder``; yields (id, why it could not be made or None) of each.

    ``root``: where paths of the source start. Person j has the identity j of the seed and a pose from (seed, "pose", j).
    Raises InputError where the folder holds people drawn otherwise, OSError.
    """
    people = AnnyPeople(source, seed, root)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    settings = source.model_dump_json(exclude={"count"})
    for identity_id, key, drawn in people.identities():
        made_from = hashlib.sha256(f"{drawn}/{settings}".encode()).hexdigest()
        at = folder / f"{identity_id.replace('/', '_')}.json"
        told = _finished(at, made_from)
        if told is None:
            try:
                person, points = people.labelled(key, generator(seed, "pose", key))
            except AssetError as error:
                yield identity_id, error.message
                continue
            told = _write(at, person, points, {"seed": seed, "number": int(key), "made_from": made_from})
        lines.append(
            json.dumps({k: told[k] for k in ("id", "file", "sha256", "seed", "height_m", "phenotype", "rights")})
        )
        yield identity_id, None
    _whole(folder / INDEX, ("\n".join(lines) + "\n").encode())


def _finished(at: Path, made_from: str) -> dict[str, Any] | None:
    """What the sidecar tells of a person that is there already. Raises InputError for one drawn otherwise."""
    if not at.is_file():
        return None
    try:
        told = json.loads(at.read_text())
        found, file, sha256 = told["made_from"], at.with_name(told["file"]), told["sha256"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{at}: it is not what `maquette people make` wrote; move it or give another --out") from None
    if found != made_from:
        raise InputError(
            f"{at.parent}: {at.stem} was drawn from another seed, job or version; give another --out, or remove the folder"
        )
    sound = file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256
    return told if sound else None


def _write(at: Path, person: PersonMesh, points: dict[str, np.ndarray], drawn: dict[str, Any]) -> dict[str, Any]:
    """Files of one person, its sidecar last. GLB has no strands: hair goes into it as the surface round its volume.
    ``points``: set -> (J, 3) world metres, NaN where absent.
    """
    person = solid(person)
    data, order = glb(person.mesh, person.identity_id, person.rights)
    placed = {name: [_place(p) for p in y_up(found)] for name, found in points.items()}
    told = {
        "id": person.identity_id,
        "file": f"{at.stem}.glb",
        "sha256": hashlib.sha256(data).hexdigest(),
        **drawn,
        "frame": FRAME,
        "height_m": round(float(np.ptp(person.mesh.vertices[:, 2])), 4),
        "phenotype": person.phenotype,
        "pose": person.pose,
        "rights": person.rights,
        "keypoints": {name: dict(zip(SETS[name].names, places)) for name, places in placed.items()},
        "bones": {name: _place(y_up(np.array(head))) for name, head in (person.bones or {}).items()},
        "parts": {"classes": CLASSES, "attribute": ATTRIBUTE, "runs": _runs(person, order)},
    }
    _whole(at.with_suffix(".glb"), data)
    marked = _marked(str(person.keypoint_set), told["keypoints"][person.keypoint_set])
    _whole(at.with_name(at.stem + ENDING), marked.encode())
    _whole(at, json.dumps(told, allow_nan=False).encode())
    return told


def _marked(keypoint_set: str, places: dict[str, list[float] | None]) -> str:
    """YAML of the points that are there. With every number in full: YAML reads 9e-05 as text."""
    lines = [f"keypoint_set: {keypoint_set}", "keypoints:"]
    for name, place in places.items():
        if place is not None:
            lines.append(f"  {name}: {{point: [{', '.join(f'{v:.5f}' for v in place)}]}}")
    return "\n".join(lines) + "\n"


def _runs(person: PersonMesh, order: np.ndarray) -> list[list[int]]:
    """[class, triangles] over the triangles in the order of the file, mesh after mesh."""
    assert person.mesh.part is not None
    labels = person.mesh.part[order]
    edges = np.flatnonzero(np.diff(labels)) + 1
    ends = np.concatenate([[0], edges, [len(labels)]])
    return [[int(labels[a]), int(b - a)] for a, b in pairwise(ends)]


def _place(point: np.ndarray) -> list[float] | None:
    """Metres to a hundredth of a millimetre; None for a point that is absent."""
    return None if np.isnan(point).any() else [round(float(v), 5) for v in point]


def _whole(at: Path, data: bytes) -> None:
    """A file that is whole or absent."""
    partial = at.with_name(f"{at.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(at)
    finally:
        partial.unlink(missing_ok=True)
