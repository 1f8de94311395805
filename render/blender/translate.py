"""Blender's imported node materials -> render.scene.Material, with textures as arrays found inside the asset's folder.

What is not said by a file is decided here, once:
- no material: neutral grey, and the part is listed; no image behind a texture: Scan.missing_colour or missing_other.
- alpha that is 1 everywhere is opaque, whatever mode the file declares.
- alpha cut (glTF MASK): cut at the file's own threshold, in the picture and in geometry alike.
- alpha blended (glTF BLEND; hair cards): mixed in the picture; geometry is there where alpha passes one half, so that
  a head of cards is not bald in depth. A blend without a texture is a lens or a cornea: mixed in the picture, and seen
  through by geometry unless the job's `transparent` says surface.
- alpha of formats that declare no mode (OBJ, FBX, USD): cut where the map is nearly two-valued, else blended.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np

from manifests.errors import PhotoError
from manifests.photo import FORMATS, MAX_BYTES, header
from render.assets.cache import MAX_TEXTURE_PX
from render.assets.references import beside
from render.response import linear, srgb
from render.scene import Material, Scan

GREY = (0.5, 0.5, 0.5)
# A map is two-valued when this share of its texels lies within a tenth of 0 or 1: a leaf or a lace, not soft hair.
TWO_VALUED = 0.9
FULL = 250
CHANNELS = {"Red": 0, "Green": 1, "Blue": 2}


class Materials:
    """Translates each material of one file once; what was missing or found goes into ``scan``'s lists."""

    def __init__(self, path: Path, scan: Scan) -> None:
        self._folder, self._scan = path.parent.resolve(), scan
        self._modes_declared = path.suffix.lower() in (".glb", ".gltf")
        self._known: dict[tuple[str, bool], int] = {}
        self._decoded: dict[str, np.ndarray] = {}
        self.made: list[Material] = []

    def index(self, material: Any, part: str, colours: bool) -> int:
        """Position in ``made`` of a Blender material or None. ``colours``: the part carries vertex colours."""
        key = (material.name_full if material else "", colours)
        if key not in self._known:
            self._known[key] = len(self.made)
            self.made.append(self._translate(material) if material else Material("missing", GREY))
        made = self.made[self._known[key]]
        if made.base_color_texture is None and colours:
            made.vertex_color = True
        if material is None and not colours and part not in self._scan.bare:
            self._scan.bare.append(part)
        return self._known[key]

    def _translate(self, material: Any) -> Material:
        made = Material(material.name)
        tree = material.node_tree
        shader = next((n for n in tree.nodes if n.type == "BSDF_PRINCIPLED"), None) if tree else None
        if shader is None:
            made.base_color = tuple(material.diffuse_color)[:3]
            return made
        inputs = shader.inputs
        missing = self._scan.missing_colour
        made.base_color = tuple(inputs["Base Color"].default_value)[:3]
        colour = self._pixels(_image_behind(inputs["Base Color"]), missing)
        made.base_color_texture = colour if colour is None else _tinted(colour, _factor(inputs["Base Color"]))
        missing = self._scan.missing_other
        made.normal_texture = self._pixels(_image_behind(inputs["Normal"]), missing)
        made.roughness = float(inputs["Roughness"].default_value)
        rough = self._plane(inputs["Roughness"], missing)
        if rough is not None:
            rough = np.rint(np.minimum(rough * _math(inputs["Roughness"])[0], 255)).astype(np.uint8)
            made.roughness_texture = np.dstack([rough, rough, rough, np.full_like(rough, 255)])
        # Metal on people is buckles and earrings: one figure for the material is enough.
        metal = self._plane(inputs["Metallic"], missing)
        made.metallic = (
            float(inputs["Metallic"].default_value)
            if metal is None
            else float(metal.mean()) / 255 * _math(inputs["Metallic"])[0]
        )
        self._alpha(made, material, inputs["Alpha"])
        return made

    def _alpha(self, made: Material, material: Any, socket: Any) -> None:
        if not socket.is_linked:
            _lens(made, float(socket.default_value))
            return
        factor, cut = _math(socket)
        plane = self._plane(socket, self._scan.missing_other)
        if plane is None:
            _lens(made, factor)
            return
        made.base_color_texture = _with_alpha(made, plane)
        if plane.min() >= FULL and factor * 255 >= FULL:
            return
        made.alpha = factor
        if cut is None and material.blend_method == "CLIP":
            cut = float(material.alpha_threshold)
        if cut is None and not self._modes_declared:
            share = float(((plane < 26) | (plane > 229)).mean())
            cut = 0.5 if share >= TWO_VALUED else None
        made.alpha_mode = "blend" if cut is None else "cutout"
        # Engines compare the texture alone with the threshold: a factor before the cut moves the threshold instead.
        made.alpha_threshold = 0.5 if cut is None else min(cut / max(factor, 1e-3), 1.0)

    def _plane(self, socket: Any, missing: list[str]) -> np.ndarray | None:
        """(h, w) uint8: the one channel of an image that feeds ``socket``, or None."""
        pixels = self._pixels(_image_behind(socket), missing)
        return None if pixels is None else np.ascontiguousarray(pixels[..., _channel(socket)])

    def _pixels(self, image: Any, missing: list[str]) -> np.ndarray | None:
        """(h, w, 4) uint8, row 0 at the top; no larger than MAX_TEXTURE_PX. None for an image that is not there.

        Sockets that share an image share the array.
        """
        if image is None:
            return None
        if image.name_full in self._decoded:
            return self._decoded[image.name_full]
        if not self._locate(image) or not min(image.size):
            name = Path(image.filepath.replace("\\", "/")).name or image.name
            if name not in missing:
                missing.append(name)
            return None
        width, height = image.size
        if max(width, height) > MAX_TEXTURE_PX:
            scale = MAX_TEXTURE_PX / max(width, height)
            image.scale(max(1, int(width * scale)), max(1, int(height * scale)))
            width, height = image.size
        flat = np.empty(width * height * 4, np.float32)
        image.pixels.foreach_get(flat)
        if image.is_float:
            np.clip(flat, 0, 1, out=flat)
        flat *= 255
        flat += 0.5
        pixels = flat.astype(np.uint8).reshape(height, width, 4)[::-1].copy()
        self._decoded[image.name_full] = pixels
        return pixels

    def _locate(self, image: Any) -> bool:
        """Point ``image`` at a file inside the asset's folder; False where there is none that may be read."""
        if image.packed_file or image.source != "FILE":
            return True
        at = Path(bpy.path.abspath(image.filepath))
        if not (at.is_file() and at.resolve().is_relative_to(self._folder)):
            name = image.filepath.replace("\\", "/").rsplit("/", 1)[-1]
            found = beside(self._folder, name)
            if found is None:
                return False
            image.filepath = str(found)
            image.reload()
            at = found
            if found.name not in self._scan.found:
                self._scan.found.append(found.name)
        return readable(at)


def readable(path: Path) -> bool:
    """Whether an image file is of a size worth decoding: its header is read, its pixels are not."""
    if path.stat().st_size > MAX_BYTES:
        return False
    kind = {"JPG": "JPEG", "TIF": "TIFF"}.get(path.suffix[1:].upper(), path.suffix[1:].upper())
    if kind not in FORMATS:
        return True
    try:
        header(path.read_bytes())
    except PhotoError:
        return False
    return True


def _node_behind(socket: Any, kind: str, depth: int = 8) -> Any:
    """The nearest node of ``kind`` upstream of ``socket``, or None."""
    if depth == 0 or not socket.is_linked:
        return None
    node = socket.links[0].from_node
    if node.type == kind:
        return node
    return next((f for s in node.inputs if (f := _node_behind(s, kind, depth - 1))), None)


def _image_behind(socket: Any) -> Any:
    node = _node_behind(socket, "TEX_IMAGE")
    return node.image if node else None


def _channel(socket: Any, depth: int = 8) -> int:
    """Which channel of the image behind ``socket`` reaches it: the image's own alpha, one of three, or red of a grey."""
    if depth == 0 or not socket.is_linked:
        return 0
    link = socket.links[0]
    if link.from_node.type == "TEX_IMAGE":
        return 3 if link.from_socket.name == "Alpha" and _has_alpha(link.from_node.image) else 0
    if link.from_node.type in ("SEPARATE_COLOR", "SEPRGB"):
        return CHANNELS.get(link.from_socket.name, {"R": 0, "G": 1, "B": 2}.get(link.from_socket.name, 0))
    onward = next((s for s in link.from_node.inputs if _node_behind(s, "TEX_IMAGE")), None)
    # A socket that reads the image itself is linked to it; go through whichever input leads there.
    return _channel(onward, depth - 1) if onward is not None else 0


def _has_alpha(image: Any) -> bool:
    """A grey map_d has no alpha of its own: there its brightness is the opacity."""
    return bool(image is not None and image.depth in (16, 32, 64, 128) and image.channels == 4)


def _math(socket: Any) -> tuple[float, float | None]:
    """(factor, threshold or None) that lie between an alpha socket and its image, as the glTF importer writes them."""
    factor, cut, depth = 1.0, None, 8
    while socket.is_linked and depth:
        node, depth = socket.links[0].from_node, depth - 1
        if node.type != "MATH":
            break
        linked = next((s for s in node.inputs if s.is_linked), None)
        free = next((float(s.default_value) for s in node.inputs if not s.is_linked), 1.0)
        if node.operation == "MULTIPLY":
            factor *= free
        elif node.operation in ("LESS_THAN", "GREATER_THAN"):
            cut = free
        elif node.operation == "ROUND":
            cut = 0.5
        if linked is None:
            break
        socket = linked
    return factor, cut


def _factor(socket: Any) -> tuple[float, ...]:
    """Linear RGB that a colour texture is multiplied by: glTF's baseColorFactor."""
    node = _node_behind(socket, "MIX")
    if node is None or node.blend_type != "MULTIPLY":
        return (1.0, 1.0, 1.0)
    free = [s for s in node.inputs if s.type == "RGBA" and not s.is_linked]
    return tuple(free[0].default_value)[:3] if len(free) == 1 else (1.0, 1.0, 1.0)


def _tinted(pixels: np.ndarray, factor: tuple[float, ...]) -> np.ndarray:
    """The colour of (h, w, 4) uint8 sRGB ``pixels`` times a linear ``factor``; the same array where that is 1."""
    if max(abs(f - 1) for f in factor) <= 1e-3:
        return pixels
    light = linear(np.arange(256, dtype=np.uint8))
    tables = [np.rint(srgb(light * f) * 255).astype(np.uint8) for f in factor]
    return np.dstack([*(table[pixels[..., i]] for i, table in enumerate(tables)), pixels[..., 3]])


def _lens(made: Material, alpha: float) -> None:
    """One alpha for all of a material."""
    made.alpha = alpha
    made.alpha_mode = "blend" if alpha * 255 < FULL else "opaque"


def _with_alpha(made: Material, plane: np.ndarray) -> np.ndarray:
    """(h, w, 4) uint8: the colour, or the plain base colour, with ``plane`` (h, w) as its alpha."""
    import cv2

    if made.base_color_texture is None:
        colour = np.rint(srgb(np.array(made.base_color)) * 255)
        return np.dstack([*(np.full_like(plane, c) for c in colour), plane])
    height, width = made.base_color_texture.shape[:2]
    out = made.base_color_texture.copy()
    out[..., 3] = plane if plane.shape == (height, width) else cv2.resize(plane, (width, height))
    return out
