"""Ray hits -> what the surface itself carries there: base colour, and the normal that its normal map bends.

Legend: N hits, F triangles. Hits are given by mesh-local face and barycentric weights.
"""

from __future__ import annotations

import numpy as np

from render.scene import Material, Mesh


def sample_texture(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """(N, C) float32 of a (h, w, C) uint8 texture at (N, 2) uv, v up, repeating, bilinear as Cycles reads it; 0..255."""
    height, width = texture.shape[:2]
    x = np.mod(uv[:, 0], 1) * width - 0.5
    y = (1 - np.mod(uv[:, 1], 1)) * height - 0.5
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    at = lambda dy, dx: texture[(y0 + dy) % height, (x0 + dx) % width].astype(np.float32)  # noqa: E731
    return (at(0, 0) * (1 - fx) + at(0, 1) * fx) * (1 - fy) + (at(1, 0) * (1 - fx) + at(1, 1) * fx) * fy


def albedo(mesh: Mesh, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 sRGB base colour at hits: the texture, else the corners' own colours, else the material's."""
    from render.response import srgb

    out = np.zeros((len(face), 3))
    for _, material, on, uv in _by_material(mesh, face, weights):
        if material.base_color_texture is not None and uv is not None:
            out[on] = sample_texture(material.base_color_texture[..., :3], uv) / 255
        elif material.vertex_color and mesh.corner_colors is not None:
            out[on] = srgb(np.einsum("nk,nkc->nc", weights[on], mesh.corner_colors[face[on]]))
        else:
            out[on] = srgb(np.array(material.base_color))
    return np.rint(out * 255).astype(np.uint8)


def bent_normals(mesh: Mesh, face: np.ndarray, weights: np.ndarray, tangent: np.ndarray) -> np.ndarray:
    """(N, 3) float64 unit world normals after the normal map, on the side the triangles' corner normals are on.

    ``tangent``: (F, 3, 4) of ``tangents``. Where a material has no map this is the interpolated corner normal.
    """
    # MikkTSpace bends the interpolated normal and tangent as they are; the result alone is brought to length 1.
    normal = np.einsum("nk,nkc->nc", weights, mesh.corner_normals[face].astype(np.float64))
    out = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    for _, material, on, uv in _by_material(mesh, face, weights):
        if material.normal_texture is None or uv is None:
            continue
        bend = sample_texture(material.normal_texture[..., :3], uv) / 127.5 - 1
        n = normal[on]
        t = np.einsum("nk,nkc->nc", weights[on], tangent[face[on], :, :3])
        b = tangent[face[on], :1, 3] * np.cross(n, t)
        bent = bend[:, :1] * t + bend[:, 1:2] * b + bend[:, 2:] * n
        length = np.linalg.norm(bent, axis=1, keepdims=True)
        out[on] = np.where(length > 1e-6, bent / np.maximum(length, 1e-12), out[on])
    return out


def tangents(mesh: Mesh) -> np.ndarray:
    """(F, 3, 4) float64 per corner: unit world tangent along +u, and the side of the bitangent (mirrored uv: -1).

    As MikkTSpace makes them, so that maps baked for any engine fit: triangles that share vertex, corner normal, uv and
    side share a tangent, weighted by their corner's angle and laid into the plane of the normal.
    """
    assert mesh.uv is not None
    p = mesh.vertices.astype(np.float64)[mesh.faces]
    uv = mesh.uv.astype(np.float64)
    e1, e2 = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    d1, d2 = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    area = d1[:, 0] * d2[:, 1] - d1[:, 1] * d2[:, 0]
    side = np.where(area < 0, -1.0, 1.0)
    along = (e1 * d2[:, 1:] - e2 * d1[:, 1:]) * side[:, None]
    angle = np.stack([_angle(p[:, (i + 1) % 3] - p[:, i], p[:, (i + 2) % 3] - p[:, i]) for i in range(3)], axis=1)
    n = mesh.corner_normals.astype(np.float64)
    flat = along[:, None] - n * np.einsum("fc,fkc->fk", along, n)[..., None]
    flat /= np.maximum(np.linalg.norm(flat, axis=2, keepdims=True), 1e-20)
    flat[np.abs(area) < 1e-20] = 0
    key = np.column_stack(
        [
            mesh.faces.ravel(),
            np.rint(uv.reshape(-1, 2) * 2**20).astype(np.int64),
            np.rint(n.reshape(-1, 3) * 2**14).astype(np.int64),
            np.repeat(side, 3).astype(np.int64),
        ]
    )
    packed = np.ascontiguousarray(key).view(np.dtype((np.void, key.dtype.itemsize * key.shape[1]))).ravel()
    _, group = np.unique(packed, return_inverse=True)
    total = np.zeros((group.max() + 1, 3))
    np.add.at(total, group, (flat * angle[..., None]).reshape(-1, 3))
    shared = total[group].reshape(-1, 3, 3)
    shared /= np.maximum(np.linalg.norm(shared, axis=2, keepdims=True), 1e-20)
    return np.concatenate([shared, np.broadcast_to(side[:, None, None], (len(side), 3, 1))], axis=2)


def _angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(F,) radians between (F, 3) edges."""
    return np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), np.einsum("fc,fc->f", a, b))


def _by_material(
    mesh: Mesh, face: np.ndarray, weights: np.ndarray
) -> list[tuple[int, Material, np.ndarray, np.ndarray | None]]:
    """(index, material, positions of its hits, their (M, 2) uv or None) for every material that was hit."""
    found = []
    for k, material in enumerate(mesh.materials):
        on = np.flatnonzero(mesh.material_index[face] == k)
        if len(on):
            uv = None if mesh.uv is None else np.einsum("nk,nkc->nc", weights[on], mesh.uv[face[on]])
            found.append((k, material, on, uv))
    return found
