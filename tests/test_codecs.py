"""Codecs keep the bounds they state, and refuse what they did not write."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import codecs
from manifests.errors import ShardError

H, W = 61, 47


def mask_of(rng):
    return (rng.random((H, W)) < 0.4).astype(np.uint8)


def directions(rng, n):
    v = rng.normal(size=(n, 3))
    return (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 20), st.floats(1e-4, 2.5))
def test_depth_comes_back_within_20_microns(seed, near, span):
    rng = np.random.default_rng(seed)
    mask = mask_of(rng)
    depth = (near + span * rng.random((H, W))).astype(np.float32)
    back = codecs.decode_depth(codecs.encode_depth(depth, mask), H, W)
    assert (back[mask == 0] == 0).all()
    assert np.abs(back - depth)[mask != 0].max() <= 22e-6


def test_depth_past_the_bound_is_lossless_and_bad_depth_is_refused():
    rng = np.random.default_rng(0)
    mask = mask_of(rng)
    depth = (1 + 9 * rng.random((H, W))).astype(np.float32)
    blob = codecs.encode_depth(depth, mask)
    assert np.array_equal(codecs.decode_depth(blob, H, W), np.where(mask != 0, depth, 0))
    for bad in (np.nan, -1.0, 0.0, np.inf):
        wrong = depth.copy()
        wrong[mask != 0] = bad
        with pytest.raises(ValueError, match="finite and above 0"):
            codecs.encode_depth(wrong, mask)


@pytest.mark.parametrize(("bits", "bound"), [(12, 0.06), (16, 0.004)])
def test_normals_come_back_within_their_bound_and_unit(bits, bound):
    rng = np.random.default_rng(1)
    normal = directions(rng, H * W).reshape(H, W, 3)
    # The corners and seams of the octahedron, where folding goes wrong first.
    normal[0, :6] = np.concatenate([np.eye(3), -np.eye(3)])
    mask = np.ones((H, W), np.uint8)
    back = codecs.decode_normal(codecs.encode_normal(normal, mask, bits), H, W)
    chord = np.linalg.norm(back.astype(np.float64) - normal, axis=-1)
    assert np.degrees(2 * np.arcsin(chord / 2)).max() <= bound + 1e-4
    assert np.abs(np.linalg.norm(back, axis=-1) - 1).max() < 1e-5


def test_planes_and_lossless_images_are_exact_and_jpeg_is_close():
    rng = np.random.default_rng(2)
    plane = rng.integers(0, 256, (H, W), dtype=np.uint8)
    assert np.array_equal(codecs.decode_u8(codecs.encode_u8(plane), H, W), plane)
    smooth = np.linspace(0, 255, H * W * 3).reshape(H, W, 3).astype(np.uint8)
    for kind in ("png", "webp"):
        assert np.array_equal(codecs.decode_image(codecs.encode_image(smooth, kind)), smooth)
    for kind in ("jpeg", "jpeg444"):
        assert np.abs(codecs.decode_image(codecs.encode_image(smooth, kind)).astype(int) - smooth).max() < 12


@pytest.mark.parametrize(
    "damage", [lambda b: b[:10], lambda b: b"XX" + b[2:], lambda b: b[:-5], lambda b: b[:20] + b"zz" + b[22:]]
)
def test_a_damaged_blob_is_an_error_not_an_array(damage):
    blob = codecs.encode_u8(np.random.default_rng(0).integers(0, 256, (H, W), dtype=np.uint8))
    with pytest.raises(ShardError):
        codecs.decode_u8(damage(blob), H, W)
    with pytest.raises(ShardError, match="codecs"):
        codecs.decode_depth(blob, H, W)


def test_an_empty_mask_is_coded_too():
    empty = np.zeros((H, W), np.uint8)
    assert not codecs.decode_depth(codecs.encode_depth(np.zeros((H, W), np.float32), empty), H, W).any()
    assert not codecs.decode_normal(codecs.encode_normal(np.zeros((H, W, 3), np.float32), empty), H, W).any()
