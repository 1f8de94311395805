"""An upright picture -> 256-bit perceptual hashes that survive re-encoding, resizing, brightness, mirroring and borders.

The hash is PDQ's DCT (Meta) over luma at 64 x 64 whose values are replaced by the square root of their
mid-rank. Measured on 64 photographs, largest distance over JPEG q10, quarter size, blur of 4 px, brightness times 1.5 and
gamma 0.6: 42 bits, against 50 without the ranks; different photographs are 100 bits apart or more.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

SIDE, THUMB, KEPT = 64, 16, 16
# A border narrower than this leaves the hash as it is.
LEAST_BORDER = 0.01
# PDQ keeps the frequencies 1 to 16 of a DCT of 64 samples; the odd ones change sign in a mirror image.
_FREQUENCY = np.arange(1, KEPT + 1)
DCT = (np.sqrt(2 / SIDE) * np.cos(np.pi / 2 / SIDE * np.outer(_FREQUENCY, 2 * np.arange(SIDE) + 1))).astype(np.float32)
MIRROR = np.where(_FREQUENCY % 2, -1, 1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Hashes of 32 bytes, None of a picture without structure; trimmed ones only where there is a flat border.

    ``thumb``: 256 bytes, 16 x 16 mid-ranks of the picture without its border, which a second look compares.
    """

    plain: bytes | None
    mirrored: bytes | None
    trimmed: bytes | None
    trimmed_mirrored: bytes | None
    thumb: bytes


def fingerprint(grey: np.ndarray, within: tuple[float, float, float, float]) -> Fingerprint:
    """``grey``: (h, w) uint8 from `filters.luma`; ``within``: what flat borders frame, from `filters.inside`."""
    plain, mirrored = hashes(grey)
    trimmed = trimmed_mirrored = None
    inner = grey
    x0, y0, x1, y1 = within
    if 1 - (x1 - x0) * (y1 - y0) > LEAST_BORDER:
        h, w = grey.shape
        inner = grey[round(y0 * h) : round(y1 * h), round(x0 * w) : round(x1 * w)]
        trimmed, trimmed_mirrored = hashes(inner)
    thumb = ranks(cv2.resize(inner, (THUMB, THUMB), interpolation=cv2.INTER_AREA))
    return Fingerprint(plain, mirrored, trimmed, trimmed_mirrored, thumb.tobytes())


def hashes(grey: np.ndarray) -> tuple[bytes | None, bytes | None]:
    """The hash of a luma picture (h, w) uint8 and that of its mirror image; None twice where it is one flat shade."""
    if min(grey.shape) < 2 or grey.max() - grey.min() < 8:
        return None, None
    small = np.sqrt(ranks(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)) / 255.0) * 255
    waves = DCT @ np.floor(small).astype(np.float32) @ DCT.T
    return _packed(waves), _packed(waves * MIRROR)


def _packed(waves: np.ndarray) -> bytes:
    """PDQ's bits: what is above the lower median, last frequency first."""
    flat = waves.ravel()
    return np.packbits((flat > np.partition(flat, flat.size // 2 - 1)[flat.size // 2 - 1])[::-1]).tobytes()


def ranks(grey: np.ndarray) -> np.ndarray:
    """Each pixel's mid-rank among all, 0..255 uint8: the same for any brightness and contrast that clips nothing."""
    counts = np.bincount(grey.ravel(), minlength=256)
    middle = np.cumsum(counts) - counts / 2
    return (255 * middle / grey.size).astype(np.uint8)[grey]
