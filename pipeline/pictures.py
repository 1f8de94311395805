"""Pictures -> data URIs, for a page that must carry everything itself."""

from __future__ import annotations

import base64

import numpy as np

from manifests import view
from manifests.codecs import encode_image
from manifests.sample import RenderedSample

QUALITY = 84


def data_uri(rgb: np.ndarray) -> str:
    """``rgb``: (H, W, 3) uint8 sRGB -> JPEG data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(encode_image(rgb, "jpeg", QUALITY)).decode()


def png_uri(data: bytes) -> str:
    """PNG bytes -> data URI."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def sample_panels(sample: RenderedSample, height: int) -> list[tuple[str, str]]:
    """(caption, data URI) of each channel of a rendered sample."""
    near, far = view.depth_range(sample.depth, sample.mask)
    captions = {"depth": f"depth {near:.2f}–{far:.2f} m"} if far > 0 else {}
    return [(captions.get(name, name), data_uri(picture)) for name, picture in view.panels(sample, height).items()]
