"""People and a camera -> exact depth, normal, instance and part at every pixel centre, by Embree ray casts at triangles and at strands of hair.

The meshes are moved into the camera frame in float64 first, so rays start at the exact origin; the triangle that Embree
names is intersected again in float64. Strands are round curves, met by rays of their own (locks.py): the nearer of both is
what is seen. Legend: N rays, F triangles, H rows, W columns. Camera frame: OpenCV, metres.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from manifests.frames import camera_rays, to_camera
from render.groundtruth.locks import Locks
from render.groundtruth.surface import albedo, bent_normals, sample_texture, tangents
from render.response import srgb
from render.scene import UNSEEN_ALPHA, Camera, PersonMesh
from render.strands import outline

# Layers of cut-out hair or cloth a ray may pass before it counts as stopped.
MAX_LAYERS = 64
# A ray goes on this far behind a layer it saw through: above float32 spacing at 10 m, below any cloth's thickness.
LAYER_STEP_M = 2e-5
UNLABELLED = 255


@dataclasses.dataclass
class Truth:
    """``depth``: (H, W) float32 planar metres. ``normal``: (H, W, 3) float32 unit, camera frame. ``mask``: (H, W)
    uint8, person + 1.

    ``layered``: (H, W) bool, the ray went through a blended layer: there Cycles' own depth is a matter of chance.
    ``strand``: (H, W) bool, the first surface is a strand's.
    ``segmentation``: (H, W) uint8 classes, 255 where unlabelled, None when no mesh has parts. ``normal_shading``: as
    ``normal``, after normal maps; ``albedo``: (H, W, 3) uint8 sRGB; None unless asked for. All 0 where nothing is hit.
    """

    depth: np.ndarray
    normal: np.ndarray
    mask: np.ndarray
    segmentation: np.ndarray | None
    layered: np.ndarray
    strand: np.ndarray
    normal_shading: np.ndarray | None = None
    albedo: np.ndarray | None = None


class Caster:
    """The people of one frame as one Embree scene in the camera frame, and their strands.

    A hit is told by its "face": a triangle of all meshes in their order, or ``triangles`` plus the place of a strand
    of all sets; and by its "weights": barycentric ones on a triangle, the point itself in the camera frame on a strand.
    """

    def __init__(self, people: list[PersonMesh], world_to_camera: np.ndarray, see_through: bool = True) -> None:
        self._people, self._see_through = people, see_through
        self._triangles = np.concatenate(
            [to_camera(p.mesh.vertices.astype(np.float64), world_to_camera)[p.mesh.faces] for p in people]
        )
        self._rotation = rotation = world_to_camera[:3, :3]
        self._corner_normals = np.concatenate([p.mesh.corner_normals.astype(np.float64) @ rotation.T for p in people])
        counts = [len(p.mesh.faces) for p in people]
        self.triangles, self._locks = sum(counts), Locks(people, world_to_camera)
        self.person = np.concatenate([np.repeat(np.arange(len(people)), counts), self._locks.person])
        self._first = np.concatenate([[0], np.cumsum(counts)])
        self._blended = np.concatenate(
            [np.array([x.alpha_mode == "blend" for x in p.mesh.materials])[p.mesh.material_index] for p in people]
        )
        # (N,) of the last first_hits: which rays went through a blended layer.
        self.through = np.zeros(0, bool)
        self._opaque: EmbreeScene | None = None
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, np.ascontiguousarray(self._triangles, np.float32))

    def first_hits(self, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First opaque surface along rays from the camera: face, planar z, weights.

        ``directions``: (N, 3) float64 camera frame with z = 1. Returns (N,) int64 face or -1, (N,) float64
        metres, (N, 3) float64 weights. Layers are seen through where Material.alpha_mode says that nothing is there; those
        that "blend" stop a ray wherever they are drawn at all when the caster was told not to see through.
        """
        n = len(directions)
        face, z, weights = np.full(n, -1), np.zeros(n), np.zeros((n, 3))
        alive, start = np.arange(n), np.zeros(n)
        # Set at the end: other threads may ask at the same time.
        through = np.zeros(n, bool)
        for _ in range(MAX_LAYERS):
            d = directions[alive]
            origins = (d * start[alive, None]).astype(np.float32)
            hit = self._scene.run(origins, d.astype(np.float32), query="INTERSECT").astype(np.int64)
            alive, d, hit = alive[hit >= 0], d[hit >= 0], hit[hit >= 0]
            if not len(alive):
                break
            hit_z, hit_weights = self._intersect(hit, d)
            solid = self._solid(hit, hit_weights)
            done = alive[solid]
            face[done], z[done], weights[done] = hit[solid], hit_z[solid], hit_weights[solid]
            start[alive] = hit_z + LAYER_STEP_M
            through[alive[self._blended[hit]]] = True
            alive = alive[~solid]
            if not len(alive):
                break
        if self._locks.sets:
            which, nearer = self._locks.first_hits(directions, np.where(face >= 0, z, np.inf))
            on = which >= 0
            face[on], z[on] = self.triangles + which[on], nearer[on]
            weights[on] = directions[on] * nearer[on, None]
        self.through = through
        return face, z, weights

    def blocked(self, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N,) bool twice: rays from the camera that meet an opaque surface, and those that meet any surface at all.

        ``directions``: (N, 3) float32 camera frame. Where everything is opaque both are the same array.
        """
        origins = np.zeros_like(directions)
        anything = np.asarray(self._scene.run(origins, directions, query="OCCLUDED")) >= 0
        opaque = np.concatenate(
            [
                np.array([x.alpha_mode == "opaque" for x in p.mesh.materials])[p.mesh.material_index]
                for p in self._people
            ]
        )
        if opaque.all():
            return anything, anything
        scene = EmbreeScene()
        TriangleMesh(scene, np.ascontiguousarray(self._triangles[opaque], np.float32))
        return np.asarray(scene.run(origins, directions, query="OCCLUDED")) >= 0, anything

    def covered(self, directions: np.ndarray) -> np.ndarray:
        """(N,) bool: whether rays from the camera along ``directions`` (N, 3) meet anything that stops them."""
        solid = all(m.alpha_mode != "cutout" for p in self._people for m in p.mesh.materials)
        if not solid or not self._see_through:
            return self.first_hits(directions)[0] >= 0
        if self._opaque is None:
            self._opaque = EmbreeScene()
            TriangleMesh(self._opaque, np.ascontiguousarray(self._triangles[~self._blended], np.float32))
        hit = (
            self._opaque.run(np.zeros_like(directions, np.float32), directions.astype(np.float32), query="OCCLUDED")
            >= 0
        )
        hit[~hit] = self._locks.covered(directions[~hit])
        return hit

    def normals(self, face: np.ndarray, weights: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """(N, 3) float64 unit interpolated vertex normals, camera frame; turned round where a sheet is seen from
        behind. Of a strand, the normal of its volume.
        """
        out, flat = np.zeros((len(face), 3)), face < self.triangles
        n = np.einsum("nk,nkc->nc", weights[flat], self._corner_normals[face[flat]])
        out[flat] = self._towards(face[flat], n, directions[flat])
        out[~flat] = self._locks.normals(face[~flat] - self.triangles, weights[~flat])
        return out

    def shading_normals(self, face: np.ndarray, weights: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """(N, 3) float64 as ``normals``, after the materials' normal maps."""
        n, flat = self.normals(face, weights, directions), face < self.triangles
        for i, person in enumerate(self._people):
            mine = np.flatnonzero((self.person[face] == i) & flat)
            if len(mine):
                mesh = person.mesh
                mapped = mesh.uv is not None and any(m.normal_texture is not None for m in mesh.materials)
                tangent = tangents(mesh) if mapped else np.zeros((len(mesh.faces), 3, 4))
                n[mine] = bent_normals(mesh, face[mine] - self._first[i], weights[mine], tangent) @ self._rotation.T
        n[flat] = self._towards(face[flat], n[flat], directions[flat])
        return n

    def albedo(self, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, 3) uint8 sRGB base colour."""
        out, strand = np.zeros((len(face), 3), np.uint8), face >= self.triangles
        out[strand] = np.rint(srgb(self._locks.color[face[strand] - self.triangles]) * 255)
        for i, person in enumerate(self._people):
            mine = np.flatnonzero((self.person[face] == i) & ~strand)
            out[mine] = albedo(person.mesh, face[mine] - self._first[i], weights[mine])
        return out

    def _towards(self, face: np.ndarray, n: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """``n`` (N, 3) as unit vectors on the side that the rays come from."""
        length = np.linalg.norm(n, axis=1, keepdims=True)
        geometric = self._geometric(face)
        n = np.where(
            length > 1e-9, n / np.maximum(length, 1e-9), geometric / np.linalg.norm(geometric, axis=1)[:, None]
        )
        # Behind means behind the triangle itself and its winding, which the vertex normals follow.
        winding = np.einsum("nc,nc->n", geometric, np.einsum("nkc->nc", self._corner_normals[face]))
        facing = np.einsum("nc,nc->n", geometric, directions) * np.where(winding < 0, -1.0, 1.0)
        return np.where((facing > 0)[:, None], -n, n)

    def parts(self, face: np.ndarray) -> np.ndarray:
        """(N,) uint8 class of each face, 255 where its mesh carries none."""
        labels = [
            p.mesh.part if p.mesh.part is not None else np.full(len(p.mesh.faces), UNLABELLED, np.uint8)
            for p in self._people
        ]
        return np.concatenate([*labels, self._locks.part])[face]

    def _geometric(self, face: np.ndarray) -> np.ndarray:
        t = self._triangles[face]
        return np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0])

    def _intersect(self, face: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Planar z (N,) and barycentric weights (N, 3) of rays ``d`` from the origin with triangles ``face``, in
        float64.
        """
        t = self._triangles[face]
        a, edge1, edge2 = t[:, 0], t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]
        normal = np.cross(edge1, edge2)
        denominator = np.einsum("nc,nc->n", normal, d)
        denominator = np.where(np.abs(denominator) < 1e-30, 1e-30, denominator)
        z = np.einsum("nc,nc->n", normal, a) / denominator
        p = d * z[:, None] - a
        d11, d12, d22 = (np.einsum("nc,nc->n", x, y) for x, y in ((edge1, edge1), (edge1, edge2), (edge2, edge2)))
        p1, p2 = np.einsum("nc,nc->n", p, edge1), np.einsum("nc,nc->n", p, edge2)
        area = np.maximum(d11 * d22 - d12 * d12, 1e-30)
        v, w = (d22 * p1 - d12 * p2) / area, (d11 * p2 - d12 * p1) / area
        weights = np.clip(np.stack([1 - v - w, v, w], axis=1), 0, 1)
        return z, weights / weights.sum(axis=1, keepdims=True)

    def _solid(self, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N,) bool: which hits stop a ray."""
        solid = np.ones(len(face), bool)
        for i, person in enumerate(self._people):
            m = person.mesh
            if all(x.alpha_mode == "opaque" for x in m.materials):
                continue
            mine = np.flatnonzero(self.person[face] == i)
            local = face[mine] - self._first[i]
            for k, material in enumerate(m.materials):
                on = m.material_index[local] == k
                if material.alpha_mode == "opaque":
                    continue
                blended = material.alpha_mode == "blend"
                if m.uv is None or material.base_color_texture is None:
                    solid[mine[on]] = not (blended and self._see_through)
                    continue
                uv = np.einsum("nk,nkc->nc", weights[mine[on]], m.uv[local[on]])
                alpha = sample_texture(material.base_color_texture[..., 3:], uv)[:, 0] / 255
                if blended:
                    alpha *= material.alpha
                # Told not to see through, a lens stops a ray; the empty part of a hair card still does not.
                drawn = blended and not self._see_through
                solid[mine[on]] = alpha > (UNSEEN_ALPHA if drawn else material.alpha_threshold)
        return solid


def region(people: list[PersonMesh], camera: Camera, pad: int = 2) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 px (half open): the part of the frame that may show anyone; None when nothing does."""
    boxes = [_extent(person, camera) for person in people]
    low, high = np.min(boxes, axis=0)[:2] - pad, np.max(boxes, axis=0)[2:] + pad
    x0, y0 = (int(max(v, 0)) for v in low)
    x1, y1 = int(min(high[0], camera.width)), int(min(high[1], camera.height))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def whole(person: PersonMesh, camera: Camera) -> bool:
    """Whether nothing of ``person`` is outside the frame."""
    x0, y0, x1, y1 = _extent(person, camera)
    return bool(x0 >= 0 and y0 >= 0 and x1 <= camera.width and y1 <= camera.height)


def _extent(person: PersonMesh, camera: Camera) -> np.ndarray:
    """(4,) float64 x0, y0, x1, y1 px in whole pixels, of the frame or not; endless when part is beside the camera."""
    points = to_camera(outline(person), camera.world_to_camera)
    if (points[:, 2] < 0.02).any():
        return np.array([-np.inf, -np.inf, np.inf, np.inf])
    uv = (points @ camera.K.T)[:, :2] / points[:, 2:]
    return np.concatenate([np.floor(uv.min(0)), np.ceil(uv.max(0))])


def cast(
    people: list[PersonMesh],
    camera: Camera,
    see_through: bool = True,
    extras: tuple[str, ...] = (),
    caster: Caster | None = None,
) -> Truth:
    """Every geometry channel of a frame; one ray per pixel centre inside the people's region.

    ``see_through``: blended materials do not stop a ray. ``extras``: "normal_shading", "albedo". ``caster``: one made of
    the same people, camera and ``see_through``, where there is one.
    """
    h, w = camera.height, camera.width
    truth = Truth(
        np.zeros((h, w), np.float32),
        np.zeros((h, w, 3), np.float32),
        np.zeros((h, w), np.uint8),
        None,
        np.zeros((h, w), bool),
        np.zeros((h, w), bool),
    )
    if any(p.mesh.part is not None for p in people):
        truth.segmentation = np.zeros((h, w), np.uint8)
    box = region(people, camera)
    if box is None:
        return truth
    x0, y0, x1, y1 = box
    caster = caster or Caster(people, camera.world_to_camera, see_through)
    directions = camera_rays(camera.K, w, h, box).reshape(-1, 3)
    face, z, weights = caster.first_hits(directions)
    truth.layered[y0:y1, x0:x1] = caster.through.reshape(y1 - y0, x1 - x0)
    hit = np.flatnonzero(face >= 0)
    ys, xs = hit // (x1 - x0) + y0, hit % (x1 - x0) + x0
    truth.depth[ys, xs] = z[hit]
    truth.normal[ys, xs] = caster.normals(face[hit], weights[hit], directions[hit])
    truth.mask[ys, xs] = caster.person[face[hit]] + 1
    truth.strand[ys, xs] = face[hit] >= caster.triangles
    if truth.segmentation is not None:
        truth.segmentation[ys, xs] = caster.parts(face[hit])
    if "albedo" in extras:
        truth.albedo = np.zeros((h, w, 3), np.uint8)
        truth.albedo[ys, xs] = caster.albedo(face[hit], weights[hit])
    if "normal_shading" in extras:
        truth.normal_shading = np.zeros((h, w, 3), np.float32)
        truth.normal_shading[ys, xs] = caster.shading_normals(face[hit], weights[hit], directions[hit])
    return truth


def visible_fraction(person: PersonMesh, index: int, mask: np.ndarray, camera: Camera, rays: int = 20_000) -> float:
    """Share of ``person``'s silhouette, seen alone from the camera, that the picture shows, by solid angle.

    Solid angle and not pixels: on an endless frame a hand beside the camera would cover more than all the rest.
    Sampled on a grid of about ``rays`` directions; ``mask``: (H, W) uint8, ``index`` its id.
    """
    points = to_camera(outline(person), camera.world_to_camera)
    toward = points / np.linalg.norm(points, axis=1, keepdims=True)
    # Angles about the person's middle, so that no one straddles the seam behind the camera.
    frame = _frame_of(toward.mean(axis=0))
    x, y, z = (toward @ frame.T).T
    azimuth, elevation = np.arctan2(x, z), np.arcsin(np.clip(y, -1, 1))
    low, high = np.array([azimuth.min(), elevation.min()]), np.array([azimuth.max(), elevation.max()])
    step = np.sqrt(np.prod(np.maximum(high - low, 1e-9)) / rays)
    a, e = (g.ravel() for g in np.meshgrid(*(np.arange(low[i] + step / 2, high[i], step) for i in (0, 1))))
    directions = np.stack([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)], axis=1) @ frame
    covered = Caster([person], camera.world_to_camera).first_hits(directions)[0] >= 0
    weight = np.cos(e) * covered
    ahead = covered & (directions[:, 2] > 1e-6)
    u, v = (directions[ahead] @ camera.K.T / directions[ahead, 2:])[:, :2].T
    inside = (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
    shown = mask[v[inside].astype(int), u[inside].astype(int)] == index
    return float(weight[ahead][inside][shown].sum() / max(weight.sum(), 1e-12))


def _frame_of(axis: np.ndarray) -> np.ndarray:
    """(3, 3) rotation whose rows are an orthonormal frame with z along ``axis`` (3,)."""
    z = axis / max(float(np.linalg.norm(axis)), 1e-12)
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


def silhouette_band(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels within one of a change of instance."""
    kernel = np.ones((3, 3), np.uint8)
    return cv2.dilate(mask, kernel) != cv2.erode(mask, kernel)
