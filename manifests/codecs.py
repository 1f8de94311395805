"""Array <-> bytes, one function pair per codec; every blob opens with a 16-byte header and bounds its own error.

Header (little endian): magic b"MQ", codec id u8, version u8, dtype u8, 3 zero bytes, z0 f32, step f32. Height and width
are not in it: they stand in the row's ``camera``. Background is coded as zeros, which compress to nothing.
Legend: H rows, W columns.
"""

from __future__ import annotations

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
DEPTH_U16, DEPTH_F32, NORMAL_OCT12, NORMAL_OCT16, PLANE_U8 = 1, 2, 3, 4, 5
DTYPE = {DEPTH_U16: 1, DEPTH_F32: 2, NORMAL_OCT12: 1, NORMAL_OCT16: 1, PLANE_U8: 0}
# Half a step is the largest rounding error: 40 microns keep 0.02 mm, and 65,534 of them span 2.6 m.
MIN_STEP_M, MAX_STEP_M, DEPTH_BOUND_M = 20e-6, 40e-6, 20e-6
NORMAL_BOUND_DEG = {12: 0.06, 16: 0.004}
# float32 holds metres to 2e-6 at 30 m: room for the decoder's own rounding.
FLOAT_SLACK_M = 2e-6


def encode_depth(depth: np.ndarray, mask: np.ndarray) -> bytes:
    """(H, W) float32 metres, valid where ``mask`` (H, W) uint8 is not 0 -> blob, error at most 0.02 mm.

    u16 affine in two byte planes; lossless float32 where the range passes 2.6 m. Raises ValueError on a depth that
    is not
    finite and positive inside the mask.
    """
    foreground = mask != 0
    z = depth[foreground].astype(np.float64)
    if z.size == 0:
        return _pack(DEPTH_U16, bytes(2 * depth.size), 0.0, MIN_STEP_M)
    low, high = float(z.min()), float(z.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low <= 0:
        raise ValueError(f"depth inside the mask must be finite and above 0, got {low} to {high}")
    z0 = float(np.float32(low))
    step = float(np.float32(max((high - z0) / 65533, MIN_STEP_M)))
    if step <= MAX_STEP_M:
        q = np.clip(np.rint((z - z0) / step), 0, 65534).astype(np.uint16) + 1
        restored = (z0 + step * (q.astype(np.float64) - 1)).astype(np.float32)
        if np.abs(restored - z).max() <= DEPTH_BOUND_M + FLOAT_SLACK_M:
            plane = np.zeros(depth.shape, np.uint16)
            plane[foreground] = q
            body = (plane & 0xFF).astype(np.uint8).tobytes() + (plane >> 8).astype(np.uint8).tobytes()
            return _pack(DEPTH_U16, body, z0, step)
    plain = np.where(foreground, depth, 0).astype("<f4")
    body = np.ascontiguousarray(plain.view(np.uint8).reshape(-1, 4).T).tobytes()
    return _pack(DEPTH_F32, body, 0.0, 0.0)


def decode_depth(blob: bytes | memoryview, height: int, width: int) -> np.ndarray:
    """(H, W) float32 metres, 0 where the mask was 0."""
    codec, z0, step, body = _unpack(blob, {DEPTH_U16: 2, DEPTH_F32: 4}, height * width)
    if codec == DEPTH_F32:
        planes = body.reshape(4, -1)
        return np.ascontiguousarray(planes.T).view("<f4").reshape(height, width).astype(np.float32, copy=False)
    low, high = body.reshape(2, height, width)
    q = (high.astype(np.uint16) << 8) | low
    depth = (q.astype(np.float64) - 1) * step + z0
    return np.where(q == 0, 0, depth).astype(np.float32)


def encode_normal(normal: np.ndarray, mask: np.ndarray, bits: int = 12) -> bytes:
    """(H, W, 3) float32 unit vectors where ``mask`` (H, W) is not 0 -> blob of octahedral codes of ``bits`` 12 or 16.

    Octahedral map of Meyer et al. 2010: project on |x| + |y| + |z| = 1, fold the lower half out. Error at most 0.06 or
    0.004 degree. Raises ValueError on a vector that is not unit inside the mask.
    """
    foreground = mask != 0
    n = normal[foreground].astype(np.float64)
    if n.size and np.abs(np.linalg.norm(n, axis=1) - 1).max() > 1e-3:
        raise ValueError("normals inside the mask must have length 1")
    levels = 2**bits - 2
    folded = n[:, :2] / np.abs(n).sum(axis=1, keepdims=True)
    lower = n[:, 2] < 0
    folded[lower] = (1 - np.abs(folded[lower][:, ::-1])) * np.where(folded[lower] >= 0, 1.0, -1.0)
    codes = np.rint((folded * 0.5 + 0.5) * levels).astype(np.uint16) + 1
    if n.size and _angle_deg(_unfold(codes, levels), n).max() > NORMAL_BOUND_DEG[bits]:
        raise ValueError(f"a normal came back more than {NORMAL_BOUND_DEG[bits]} degrees off")
    planes = np.zeros((2, *mask.shape), np.uint16)
    planes[:, foreground] = codes.T
    u, v = planes
    parts = [(u & 0xFF), (v & 0xFF)]
    parts += [(u >> 8) | ((v >> 8) << 4)] if bits == 12 else [(u >> 8), (v >> 8)]
    body = b"".join(p.astype(np.uint8).tobytes() for p in parts)
    return _pack(NORMAL_OCT12 if bits == 12 else NORMAL_OCT16, body, 0.0, 0.0)


def decode_normal(blob: bytes | memoryview, height: int, width: int) -> np.ndarray:
    """(H, W, 3) float32 unit vectors, 0 where the mask was 0."""
    codec, _, _, body = _unpack(blob, {NORMAL_OCT12: 3, NORMAL_OCT16: 4}, height * width)
    planes = body.reshape(-1, height * width).astype(np.uint16)
    if codec == NORMAL_OCT12:
        u = planes[0] | ((planes[2] & 0xF) << 8)
        v = planes[1] | ((planes[2] >> 4) << 8)
        levels = 2**12 - 2
    else:
        u, v = planes[0] | (planes[2] << 8), planes[1] | (planes[3] << 8)
        levels = 2**16 - 2
    foreground = np.flatnonzero(u)
    normal = np.zeros((height * width, 3), np.float32)
    normal[foreground] = _unfold(np.stack([u[foreground], v[foreground]], axis=1), levels)
    return normal.reshape(height, width, 3)


def encode_u8(plane: np.ndarray) -> bytes:
    """(H, W) uint8 -> blob, lossless."""
    return _pack(PLANE_U8, np.ascontiguousarray(plane, np.uint8).tobytes(), 0.0, 1.0)


def decode_u8(blob: bytes | memoryview, height: int, width: int) -> np.ndarray:
    """(H, W) uint8."""
    return _unpack(blob, {PLANE_U8: 1}, height * width)[3].reshape(height, width)


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


def decode_image(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 sRGB from bytes that ``encode_image`` made; photographs go through manifests/photo.py.

    Raises ShardError.
    """
    if data[:2] == b"\xff\xd8" and simplejpeg is not None:
        try:
            return simplejpeg.decode_jpeg(data, "RGB")
        except ValueError as error:
            raise ShardError(f"image does not decode: {error}") from None
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ShardError("image does not decode")
    return np.ascontiguousarray(bgr[..., ::-1])


def _unfold(codes: np.ndarray, levels: int) -> np.ndarray:
    """(N, 3) float32 unit vectors from (N, 2) uint16 octahedral codes 1..levels + 1."""
    p = (codes.astype(np.float32) - 1) * np.float32(2 / levels) - 1
    z = 1 - np.abs(p).sum(axis=1)
    t = np.maximum(-z, 0)[:, None]
    xy = p - np.where(p >= 0, t, -t)
    n = np.concatenate([xy, z[:, None]], axis=1)
    return n / np.linalg.norm(n, axis=1, keepdims=True)


def _angle_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) angles between unit vectors, by the chord: acos loses half its digits near 0."""
    return np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(a - b, axis=1) / 2, 0, 1)))


def _pack(codec: int, body: bytes, z0: float, step: float) -> bytes:
    packed = pa.Codec("zstd", compression_level=1).compress(body, asbytes=True)
    return HEADER.pack(MAGIC, codec, VERSION, DTYPE[codec], z0, step) + packed


def _unpack(blob: bytes | memoryview, planes: dict[int, int], pixels: int) -> tuple[int, float, float, np.ndarray]:
    """(codec, z0, step, uint8 body); raises ShardError on anything that this module did not write."""
    if len(blob) < HEADER.size:
        raise ShardError(f"blob of {len(blob)} bytes is shorter than its header")
    magic, codec, version, _, z0, step = HEADER.unpack_from(blob)
    if magic != MAGIC or version != VERSION or codec not in planes:
        raise ShardError(f"blob header {bytes(blob[:5])!r} is not one of codecs {sorted(planes)}, version {VERSION}")
    size = planes[codec] * pixels
    try:
        body = pa.Codec("zstd").decompress(memoryview(blob)[HEADER.size :], decompressed_size=size)
    except (OSError, ValueError) as error:
        raise ShardError(f"blob does not decompress: {error}") from None
    raw = np.frombuffer(body, np.uint8)
    if raw.size != size:
        raise ShardError(f"blob holds {raw.size} bytes, {size} expected")
    return codec, z0, step, raw
