"""Array <-> bytes, one function pair per codec; every blob opens with a 16-byte header and bounds its own error.

Header (little endian): magic b"MQ", codec id u8, version u8, dtype u8, 3 zero bytes, z0 f32, step f32. Height and width
are not in it: they stand in the row's ``camera``. Background is coded as zeros, which compress to nothing.
Legend: H rows, W columns.
"""

from __future__ import annotations

import dataclasses
import struct

import cv2
import numpy as np
import pyarrow as pa

from manifests.errors import ShardError

try:  # twice as fast as OpenCV and strict; machines that only train may lack it
    import simplejpeg
except ImportError:
    simplejpeg = None

MAGIC, VERSION = b"MQ", 1
HEADER = struct.Struct("<2sBBB3xff")
DEPTH_U16, DEPTH_F32, NORMAL_OCT12, NORMAL_OCT16, PLANE_U8, NORMAL_F32 = 1, 2, 3, 4, 5, 6
DTYPE = {DEPTH_U16: 1, DEPTH_F32: 2, NORMAL_OCT12: 1, NORMAL_OCT16: 1, PLANE_U8: 0, NORMAL_F32: 2}
# Byte planes (H, W) of each codec's body, low bytes first.
PLANES = {DEPTH_U16: 2, DEPTH_F32: 4, NORMAL_OCT12: 3, NORMAL_OCT16: 4, PLANE_U8: 1, NORMAL_F32: 12}
# Half a step is the largest rounding error: 40 microns keep 0.02 mm, and 65,534 of them span 2.6 m.
MIN_STEP_M, MAX_STEP_M, DEPTH_BOUND_M = 20e-6, 40e-6, 20e-6
NORMAL_CODECS = {12: NORMAL_OCT12, 16: NORMAL_OCT16, 32: NORMAL_F32}
NORMAL_BOUND_DEG = {12: 0.06, 16: 0.004, 32: 0.0}
# Thread-safe: each call makes its own context.
ZSTD = pa.Codec("zstd", compression_level=1)
LEVELS = {NORMAL_OCT12: 2**12 - 2, NORMAL_OCT16: 2**16 - 2}


@dataclasses.dataclass(frozen=True)
class Header:
    """What a blob says of itself: ``codec``, and ``z0`` and ``step`` in metres for DEPTH_U16 (0 elsewhere)."""

    codec: int
    z0: float
    step: float


def encode_depth(depth: np.ndarray, mask: np.ndarray, lossless: bool = False) -> bytes:
    """(H, W) float32 metres, valid where ``mask`` (H, W) uint8 is not 0 -> blob, error at most 0.02 mm.

    u16 affine in two byte planes; float32, bit for bit, on request and where u16 would pass the bound (a range past
    2.6 m, or so far away that float32 itself rounds). The decoder runs on every sample before its blob is returned.
    Raises ValueError on a depth that is not finite and positive inside the mask.
    """
    _same_shape(depth.shape, mask.shape)
    at = np.flatnonzero(mask)
    z = depth.ravel()[at]
    if z.size == 0:
        return _pack(DEPTH_U16, bytes(2 * depth.size), 0.0, MIN_STEP_M)
    low, high = float(z.min()), float(z.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low <= 0:
        raise ValueError(f"depth inside the mask must be finite and above 0, got {low} to {high}")
    step = float(np.float32(max((high - low) / 65533, MIN_STEP_M)))
    if not lossless and step <= MAX_STEP_M:
        codes = np.rint((z.astype(np.float64) - low) / step).clip(0, 65534).astype(np.uint16) + np.uint16(1)
        if np.abs(_dequantise(codes, low, step).astype(np.float64) - z).max() <= DEPTH_BOUND_M:
            return _pack(DEPTH_U16, _scatter([codes & 0xFF, codes >> 8], at, depth.size), low, step)
    if z.dtype != np.float32:
        raise ValueError(f"depth that is stored without loss must be float32, got {z.dtype}")
    return _pack(DEPTH_F32, _scatter(_bytes_of(z), at, depth.size), 0.0, 0.0)


def decode_depth(blob: bytes | memoryview, height: int, width: int) -> np.ndarray:
    """(H, W) float32 metres, 0 where the mask was 0."""
    found, planes = read_planes(blob, (DEPTH_U16, DEPTH_F32), height, width)
    if found.codec == DEPTH_F32:
        return _floats(planes)[..., 0]
    codes = joined(planes)
    return np.where(codes == 0, np.float32(0), _dequantise(codes, found.z0, found.step))


def encode_normal(normal: np.ndarray, mask: np.ndarray, bits: int = 12) -> bytes:
    """(H, W, 3) float32 unit vectors where ``mask`` (H, W) is not 0 -> blob; ``bits`` 12 or 16 per octahedral axis, or 32.

    Octahedral map of Meyer et al. 2010: project on |x| + |y| + |z| = 1, fold the lower half out. Error at most 0.06 or
    0.004 degree, checked on every sample before its blob is returned; 32 stores the float32 bits. Raises ValueError
    on a vector that is not unit inside the mask.
    """
    _same_shape(normal.shape, (*mask.shape, 3))
    at = np.flatnonzero(mask)
    n = normal.reshape(-1, 3)[at]
    if n.size and not np.abs(np.einsum("ij,ij->i", n, n, dtype=np.float64) - 1).max() <= 2e-3:
        raise ValueError("normals inside the mask must have length 1")
    codec = NORMAL_CODECS[bits]
    if codec == NORMAL_F32:
        if n.dtype != np.float32:
            raise ValueError(f"normals that are stored without loss must be float32, got {n.dtype}")
        return _pack(codec, _scatter([p for axis in n.T for p in _bytes_of(axis)], at, mask.size), 0.0, 0.0)
    x, y, z = (np.ascontiguousarray(axis, np.float32) for axis in n.T)
    scale = 1 / (np.abs(x) + np.abs(y) + np.abs(z)) if n.size else x
    u, v = x * scale, y * scale
    below = np.flatnonzero(z < 0)
    u[below], v[below] = (
        np.copysign(1 - np.abs(v[below]), u[below]),
        np.copysign(1 - np.abs(u[below]), v[below]),
    )
    half = np.float32(LEVELS[codec] / 2)
    u, v = (np.rint(axis * half + half).astype(np.uint16) + np.uint16(1) for axis in (u, v))
    if n.size and _largest_angle_deg(_unfold(u, v, LEVELS[codec]), (x, y, z)) > NORMAL_BOUND_DEG[bits]:
        raise ValueError(f"a normal came back more than {NORMAL_BOUND_DEG[bits]} degrees off")
    high = [(u >> 8) | ((v >> 8) << 4)] if bits == 12 else [u >> 8, v >> 8]
    return _pack(codec, _scatter([u & 0xFF, v & 0xFF, *high], at, mask.size), 0.0, 0.0)


def decode_normal(blob: bytes | memoryview, height: int, width: int) -> np.ndarray:
    """(H, W, 3) float32 unit vectors, 0 where the mask was 0."""
    found, planes = read_planes(blob, tuple(NORMAL_CODECS.values()), height, width)
    if found.codec == NORMAL_F32:
        return _floats(planes)
    flat = planes.reshape(len(planes), -1)
    at = np.flatnonzero(flat[0] | flat[2])
    normal = np.zeros((height * width, 3), np.float32)
    u, v = _pair(flat[:, at])
    for axis, values in enumerate(_unfold(u, v, LEVELS[found.codec])):
        normal[at, axis] = values
    return normal.reshape(height, width, 3)


def encode_u8(plane: np.ndarray) -> bytes:
    """(H, W) uint8 -> blob, lossless. Raises ValueError on another dtype: it would not come back."""
    if plane.dtype != np.uint8:
        raise ValueError(f"a plane must be uint8, got {plane.dtype}")
    return _pack(PLANE_U8, np.ascontiguousarray(plane).tobytes(), 0.0, 1.0)


def decode_u8(blob: bytes | memoryview, height: int, width: int) -> np.ndarray:
    """(H, W) uint8."""
    return read_planes(blob, (PLANE_U8,), height, width)[1][0]


def header(blob: bytes | memoryview, codecs: tuple[int, ...]) -> Header:
    """The blob's header, without touching its pixels. Raises ShardError unless it is one of ``codecs``."""
    if len(blob) < HEADER.size:
        raise ShardError(f"blob of {len(blob)} bytes is shorter than its header")
    magic, codec, version, dtype, z0, step = HEADER.unpack_from(blob)
    if magic != MAGIC or version != VERSION or codec not in codecs or dtype != DTYPE[codec]:
        raise ShardError(f"blob header {bytes(blob[:5])!r} is not one of codecs {sorted(codecs)}, version {VERSION}")
    return Header(codec, z0, step)


def read_planes(
    blob: bytes | memoryview, codecs: tuple[int, ...], height: int, width: int
) -> tuple[Header, np.ndarray]:
    """(header, (P, H, W) uint8 byte planes), P by ``PLANES``: what a GPU dequantises by itself.

    Raises ShardError on anything that this module did not write.
    """
    found = header(blob, codecs)
    size = PLANES[found.codec] * height * width
    try:
        body = ZSTD.decompress(memoryview(blob)[HEADER.size :], decompressed_size=size)
    except (OSError, ValueError) as error:
        raise ShardError(f"blob does not decompress: {error}") from None
    raw = np.frombuffer(body, np.uint8)
    if raw.size != size:
        raise ShardError(f"blob holds {raw.size} bytes, {size} expected")
    return found, raw.reshape(-1, height, width)


def joined(planes: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """(2, ...) uint8 byte planes, low first -> (...) uint16. A strided view would take 20 times as long (5 ms)."""
    codes = np.left_shift(planes[1], 8, out=out, dtype=np.uint16)
    codes |= planes[0]
    return codes


def encode_image(rgb: np.ndarray, image_format: str, quality: int = 95) -> bytes:
    """(H, W, 3) uint8 sRGB -> file bytes: "jpeg" (4:2:0), "jpeg444", "png" or "webp" (lossless)."""
    rgb = np.ascontiguousarray(rgb)
    if image_format in ("jpeg", "jpeg444"):
        subsampling = "420" if image_format == "jpeg" else "444"
        if simplejpeg is not None:
            return simplejpeg.encode_jpeg(rgb, quality, "RGB", subsampling)
        factor = {"420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444}
        options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor[subsampling]]
        return cv2.imencode(".jpg", rgb[..., ::-1], options)[1].tobytes()
    # Quality above 100 is OpenCV's word for lossless WebP.
    options = {"png": [cv2.IMWRITE_PNG_COMPRESSION, 4], "webp": [cv2.IMWRITE_WEBP_QUALITY, 101]}[image_format]
    return cv2.imencode(f".{image_format}", rgb[..., ::-1], options)[1].tobytes()


def decode_image(data: bytes | memoryview, out: np.ndarray | None = None) -> np.ndarray:
    """(H, W, 3) uint8 sRGB from bytes that ``encode_image`` made; photographs go through manifests/photo.py.

    ``out``: an array to decode into. Raises ShardError, also where the picture has another size than ``out``.
    """
    # Arrow's buffers are of signed bytes, which equal no bytes and which simplejpeg refuses.
    data = memoryview(data).cast("B")
    if data[:2] == b"\xff\xd8" and simplejpeg is not None:
        try:
            if out is None:
                return simplejpeg.decode_jpeg(data, "RGB")
            if simplejpeg.decode_jpeg_header(data)[:2] == out.shape[:2]:
                return simplejpeg.decode_jpeg(data, "RGB", buffer=out)
        except ValueError as error:
            raise ShardError(f"image does not decode: {error}") from None
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ShardError("image does not decode")
    if out is not None and bgr.shape != out.shape:
        raise ShardError(f"image is {bgr.shape[1]}x{bgr.shape[0]}, {out.shape[1]}x{out.shape[0]} expected")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, out)


def _pair(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3 or 4, ...) uint8 planes of NORMAL_OCT12 or NORMAL_OCT16 -> two (...) uint16 codes, 0 = background."""
    wide = planes.astype(np.uint16)
    if len(planes) == PLANES[NORMAL_OCT12]:
        return wide[0] | ((wide[2] & 0xF) << 8), wide[1] | ((wide[2] >> 4) << 8)
    return wide[0] | (wide[2] << 8), wide[1] | (wide[3] << 8)


def _unfold(u: np.ndarray, v: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y, z (N,) float32 of unit vectors from two (N,) uint16 octahedral codes 1..levels + 1."""
    scale = np.float32(2 / levels)
    x, y = ((c.astype(np.float32) - 1) * scale - 1 for c in (u, v))
    z = 1 - np.abs(x) - np.abs(y)
    t = np.maximum(-z, 0)
    x, y = x - np.copysign(t, x), y - np.copysign(t, y)
    length = np.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


def _dequantise(codes: np.ndarray, z0: float, step: float) -> np.ndarray:
    """float32 metres of uint16 codes 1..65535, computed in float64: float32 would add up to 0.2 microns at 3 m."""
    return ((codes.astype(np.float64) - 1) * step + z0).astype(np.float32)


def _largest_angle_deg(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> float:
    """Largest angle between two lists of unit vectors, by the chord: acos loses half its digits near 0."""
    chord = sum((p - q) ** 2 for p, q in zip(a, b))
    return float(np.degrees(2 * np.arcsin(min(np.sqrt(np.max(chord)) / 2, 1.0))))


def _same_shape(given: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if given != expected:
        raise ValueError(f"array of shape {given} does not lie on the mask: {expected} expected")


def _bytes_of(values: np.ndarray) -> list[np.ndarray]:
    """The four byte planes of (N,) float32, low first: bytes of like weight lie together and compress."""
    return list(np.ascontiguousarray(values, "<f4").view(np.uint8).reshape(-1, 4).T)


def _floats(planes: np.ndarray) -> np.ndarray:
    """(4 C, H, W) uint8 byte planes -> (H, W, C) float32."""
    return np.ascontiguousarray(planes.transpose(1, 2, 0)).view("<f4").astype(np.float32, copy=False)


def _scatter(planes: list[np.ndarray], at: np.ndarray, pixels: int) -> bytes:
    """Byte planes of the foreground pixels ``at`` -> the whole planes' bytes, 0 elsewhere."""
    body = np.zeros((len(planes), pixels), np.uint8)
    for row, plane in zip(body, planes):
        row[at] = plane
    return body.tobytes()


def _pack(codec: int, body: bytes, z0: float, step: float) -> bytes:
    return HEADER.pack(MAGIC, codec, VERSION, DTYPE[codec], z0, step) + ZSTD.compress(body, asbytes=True)
