"""Made stand-ins for people, one for each thing that goes wrong in scans: feet on z = 0, facing -y, 1.2 to 1.9 m."""

from __future__ import annotations

import numpy as np

from manifests import plan
from manifests.seeds import generator
from render.scene import Material, Mesh, PersonMesh

RIGHTS = {"id": "made", "source": "test", "licence": "CC0-1.0", "consent": "none", "redistributable": True}


def person(name: str, mesh: Mesh) -> PersonMesh:
    """``mesh`` with landmarks at a body's heights."""
    middle = (mesh.vertices.min(0) + mesh.vertices.max(0))[:2].astype(np.float64) / 2
    top = float(mesh.vertices[:, 2].max())
    at = {"head_top": top, "chin": 0.87 * top, "hips": 0.53 * top, "feet": 0.0}
    return PersonMesh(name, mesh, {k: np.array([*middle, z]) for k, z in at.items()}, RIGHTS | {"id": name})


def egg(rng: np.random.Generator, rows: int = 48, mirrored: bool = True) -> Mesh:
    """An ellipsoid of three different axes with a bumpy normal map; u runs back on the mirrored half."""
    lat, lon = np.meshgrid(np.linspace(0, np.pi, rows + 1), np.linspace(0, 2 * np.pi, 2 * rows + 1), indexing="ij")
    unit = np.stack([np.sin(lat) * np.cos(lon), np.sin(lat) * np.sin(lon), np.cos(lat)], axis=-1)
    axes = np.array([rng.uniform(0.15, 0.3), rng.uniform(0.12, 0.25), rng.uniform(0.6, 0.9)])
    # A normal goes by the inverse transpose of what the points go by.
    points, normals = unit * axes + [0, 0, axes[2]], unit / axes
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    u = lon / (2 * np.pi)
    uv = np.stack([np.where(u > 0.5, 1 - u, u) * 2 if mirrored else u, 1 - lat / np.pi], axis=-1)
    i, j = (g.ravel() for g in np.meshgrid(np.arange(rows), np.arange(2 * rows), indexing="ij"))
    a, b, c, d = ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1))
    at = lambda grid, k: grid[k[0], k[1]]  # noqa: E731
    triangles = [(a, b, c), (a, c, d)]
    number = np.arange(lat.size).reshape(lat.shape)
    stack = lambda grid: np.concatenate([np.stack([at(grid, k) for k in t], axis=1) for t in triangles])  # noqa: E731
    faces = stack(number)
    p = points.reshape(-1, 3)[faces]
    flat = np.linalg.norm(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1) < 1e-12
    colour = np.full((64, 64, 4), 255, np.uint8)
    colour[..., :3] = (rng.random((64, 64, 3)) * 255).astype(np.uint8)
    return Mesh(
        vertices=points.reshape(-1, 3).astype(np.float32),
        faces=faces[~flat].astype(np.int32),
        corner_normals=stack(normals)[~flat].astype(np.float32),
        material_index=np.zeros((~flat).sum(), np.int32),
        materials=[Material("skin", base_color_texture=colour, normal_texture=bumps())],
        uv=stack(uv)[~flat].astype(np.float32),
    )


def bumps(size: int = 256, waves: int = 6, slope: float = 0.25) -> np.ndarray:
    """(size, size, 4) uint8 tangent-space normal map of crossed sine waves."""
    v, u = np.mgrid[0:size, 0:size] / size * 2 * np.pi * waves
    n = np.stack([-slope * np.cos(u), slope * np.cos(v), np.ones_like(u)], axis=-1)
    n /= np.linalg.norm(n, axis=-1, keepdims=True)
    out = np.full((size, size, 4), 255, np.uint8)
    out[..., :3] = np.rint((n + 1) * 127.5)
    return out


def cards(rng: np.random.Generator, count: int = 160) -> Mesh:
    """A head of hair cards: open quads whose texture cuts strands out of them, some seen from behind."""
    height = rng.uniform(1.5, 1.9)
    root = rng.normal(size=(count, 3))
    root /= np.linalg.norm(root, axis=1, keepdims=True)
    start = root * 0.1 + [0, 0, height - 0.12]
    end = start + root * 0.06 - [0, 0, 1] * rng.uniform(0.2, height - 0.5, (count, 1))
    across = np.cross(root, [0, 0, 1.0])
    across *= 0.03 / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
    corners = np.stack([start - across, start + across, end + across, end - across], axis=1)
    corners[0, 2:, 2] = 0
    faces = (np.arange(count)[:, None, None] * 4 + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3)
    p = corners.reshape(-1, 3)[faces]
    normal = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    uv = np.tile(np.array([[[0, 1], [1, 1], [1, 0]], [[0, 1], [1, 0], [0, 0]]], np.float32), (count, 1, 1))
    strands = np.full((64, 64, 4), 255, np.uint8)
    # Ramps, not steps: the cut then lies between texels, where a sampler's rounding would show.
    strands[..., 3] = np.rint(127.5 + 127.5 * np.sin(np.arange(64) / 64 * 2 * np.pi * 5))
    return Mesh(
        vertices=corners.reshape(-1, 3).astype(np.float32),
        faces=faces.astype(np.int32),
        corner_normals=np.repeat(normal[:, None], 3, axis=1).astype(np.float32),
        material_index=np.zeros(len(faces), np.int32),
        materials=[Material("hair", (0.2, 0.1, 0.05), strands, alpha_mode="cutout")],
        uv=uv,
    )


def cloth(rng: np.random.Generator, rows: int = 60) -> Mesh:
    """A standing open sheet in waves, one triangle thick, folded over itself: half of it shows its back."""
    t, z = np.meshgrid(np.linspace(0, 1, rows + 1), np.linspace(0, rng.uniform(1.2, 1.8), rows + 1), indexing="ij")
    turn = rng.uniform(2.2, 3.4) * np.pi * t
    radius = 0.1 + 0.18 * t + 0.02 * np.sin(9 * z)
    points = np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=-1)
    number = np.arange(t.size).reshape(t.shape)
    a, b, c, d = (g.ravel() for g in (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    p = points.reshape(-1, 3)
    normals = np.zeros_like(p)
    flat = np.cross(p[faces[:, 1]] - p[faces[:, 0]], p[faces[:, 2]] - p[faces[:, 0]])
    for k in range(3):
        np.add.at(normals, faces[:, k], flat)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return Mesh(
        vertices=p.astype(np.float32),
        faces=faces.astype(np.int32),
        corner_normals=normals[faces].astype(np.float32),
        material_index=np.zeros(len(faces), np.int32),
        materials=[Material("cloth", (0.5, 0.2, 0.2))],
    )


def veiled(rng: np.random.Generator) -> Mesh:
    """An egg behind a blended pane, as eyes are behind glasses."""
    mesh = egg(rng, mirrored=False)
    front = float(mesh.vertices[:, 1].min()) - 0.05
    pane = np.array([[-0.2, front, 0.9], [0.2, front, 0.9], [0.2, front, 1.3], [-0.2, front, 1.3]], np.float32)
    n = len(mesh.vertices)
    return Mesh(
        vertices=np.concatenate([mesh.vertices, pane]),
        faces=np.concatenate([mesh.faces, np.array([[n, n + 1, n + 2], [n, n + 2, n + 3]], np.int32)]),
        corner_normals=np.concatenate([mesh.corner_normals, np.tile(np.float32([0, -1, 0]), (2, 3, 1))]),
        material_index=np.concatenate([mesh.material_index, np.ones(2, np.int32)]),
        materials=[*mesh.materials, Material("lens", alpha_mode="blend", alpha=0.3)],
        uv=np.concatenate([mesh.uv, np.zeros((2, 3, 2), np.float32)]),
    )


KINDS = {"egg": egg, "cards": cards, "cloth": cloth, "veiled": veiled}


class Pool:
    """Thirty made figures, read by no engine."""

    def identities(self) -> list[tuple[str, str, str]]:
        return [(f"made/{i:02d}", str(i), "0" * 64) for i in range(30)]

    def load(self, key: str, rng: np.random.Generator) -> PersonMesh:
        draw = generator(5, "made", int(key))
        # Twelve rows are coarse and enough: what counts here is where people stand.
        return person(f"made/{int(key):02d}", egg(draw, rows=12))

    def planned(self) -> list[plan.Identity]:
        """The same, as a task's samples are drawn from them."""
        return [plan.Identity(name, 0, key, "train") for name, key, _ in self.identities()]
