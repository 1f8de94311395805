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
    error = np.abs(back.astype(np.float64) - depth)[mask != 0]
    assert error.max() <= 20e-6


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


def test_the_step_that_just_fits_keeps_the_bound_and_the_next_one_is_lossless():
    mask = np.ones((H, W), np.uint8)
    for span, codec in ((2.60, codecs.DEPTH_U16), (2.63, codecs.DEPTH_F32)):
        depth = np.linspace(1.0, 1.0 + span, H * W).astype(np.float32).reshape(H, W)
        blob = codecs.encode_depth(depth, mask)
        assert codecs.header(blob, (codec,)).codec == codec
        assert np.abs(codecs.decode_depth(blob, H, W).astype(np.float64) - depth).max() <= 20e-6
    # At 260 m float32 itself is 30 microns coarse: what u16 adds must not break the bound.
    far = np.linspace(260.0, 262.5, H * W).astype(np.float32).reshape(H, W)
    back = codecs.decode_depth(codecs.encode_depth(far, mask), H, W)
    assert np.abs(back.astype(np.float64) - far).max() <= 20e-6


def test_lossless_means_every_bit_and_only_the_foreground():
    rng = np.random.default_rng(4)
    mask = mask_of(rng)
    depth = rng.uniform(0.5, 3, (H, W)).astype(np.float32)
    normal = directions(rng, H * W).reshape(H, W, 3)
    inside = mask != 0
    back = codecs.decode_depth(codecs.encode_depth(depth, mask, lossless=True), H, W)
    assert np.array_equal(back, np.where(inside, depth, 0))
    back = codecs.decode_normal(codecs.encode_normal(normal, mask, 32), H, W)
    assert np.array_equal(back, np.where(inside[..., None], normal, 0))
    with pytest.raises(ValueError, match="must be float32"):
        codecs.encode_depth(depth.astype(np.float64), mask, lossless=True)


def test_what_lies_outside_the_mask_is_neither_read_nor_stored():
    rng = np.random.default_rng(5)
    mask = mask_of(rng)
    depth, normal = rng.uniform(1, 2, (H, W)).astype(np.float32), directions(rng, H * W).reshape(H, W, 3)
    dirty_depth, dirty_normal = depth.copy(), normal.copy()
    dirty_depth[mask == 0], dirty_normal[mask == 0] = np.nan, 7.0
    assert codecs.encode_depth(dirty_depth, mask) == codecs.encode_depth(depth, mask)
    assert codecs.encode_normal(dirty_normal, mask) == codecs.encode_normal(normal, mask)


def test_arrays_that_do_not_lie_on_the_mask_are_refused():
    mask = np.ones((H, W), np.uint8)
    with pytest.raises(ValueError, match="does not lie on the mask"):
        codecs.encode_depth(np.ones((W, H), np.float32), mask)
    with pytest.raises(ValueError, match="does not lie on the mask"):
        codecs.encode_normal(np.ones((H, W), np.float32), mask)
    with pytest.raises(ValueError, match="length 1"):
        codecs.encode_normal(np.full((H, W, 3), np.nan, np.float32), mask)
    with pytest.raises(ValueError, match="must be uint8"):
        codecs.encode_u8(np.full((H, W), 300))


def test_the_header_is_sixteen_bytes_that_say_what_follows():
    mask = np.ones((H, W), np.uint8)
    depth = np.linspace(1.5, 2.0, H * W).astype(np.float32).reshape(H, W)
    blob = codecs.encode_depth(depth, mask)
    assert codecs.HEADER.size == 16
    assert blob[:3] == b"MQ\x01"
    assert codecs.header(blob, (codecs.DEPTH_U16,)).z0 == 1.5
    assert codecs.header(blob, (codecs.DEPTH_U16,)).step == np.float32(20e-6)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_torch_decodes_on_its_device_to_what_numpy_decodes(device):
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    from training import decode

    rng = np.random.default_rng(6)
    masks = [mask_of(rng) for _ in range(3)]
    depths = [rng.uniform(1, 1 + k, (H, W)).astype(np.float32) for k in (0.5, 1.5, 2.5)]
    normals = [directions(rng, H * W).reshape(H, W, 3) for _ in range(3)]

    def on_device(arrays):
        return torch.from_numpy(np.stack(arrays)).to(device)

    blobs = [codecs.encode_depth(d, m) for d, m in zip(depths, masks)]
    heads, planes = zip(*(codecs.read_planes(b, (codecs.DEPTH_U16,), H, W) for b in blobs))
    z0, step = (on_device([np.float32(getattr(h, k)) for h in heads]) for k in ("z0", "step"))
    back = decode.depth(on_device(planes), z0, step)[:, 0].cpu().numpy()
    assert np.array_equal(back, np.stack([codecs.decode_depth(b, H, W) for b in blobs]))
    exact = [codecs.encode_depth(d, m, lossless=True) for d, m in zip(depths, masks)]
    planes = [codecs.read_planes(b, (codecs.DEPTH_F32,), H, W)[1] for b in exact]
    back = decode.depth_float(on_device(planes))[:, 0].cpu().numpy()
    assert np.array_equal(back, np.stack([codecs.decode_depth(b, H, W) for b in exact]))
    for bits in (12, 16):
        blobs = [codecs.encode_normal(n, m, bits) for n, m in zip(normals, masks)]
        planes = [codecs.read_planes(b, (codecs.NORMAL_CODECS[bits],), H, W)[1] for b in blobs]
        back = decode.normal(on_device(planes)).permute(0, 2, 3, 1).cpu().numpy()
        assert np.abs(back - np.stack([codecs.decode_normal(b, H, W) for b in blobs])).max() < 1e-6
    with pytest.raises(ValueError, match="byte planes"):
        decode.normal(torch.zeros(1, 2, 4, 4, dtype=torch.uint8))


def test_a_picture_decodes_in_place_and_from_an_arrow_buffer():
    import pyarrow as pa

    rng = np.random.default_rng(7)
    picture = rng.integers(0, 256, (H, W, 3), dtype=np.uint8)
    for kind in ("jpeg", "png", "webp"):
        data = codecs.encode_image(picture, kind)
        truth = codecs.decode_image(data)
        out = np.zeros((H, W, 3), np.uint8)
        codecs.decode_image(memoryview(pa.py_buffer(data)), out)
        assert np.array_equal(out, truth)
        scalar = pa.array([data], pa.binary())[0].as_buffer()
        assert np.array_equal(codecs.decode_image(memoryview(scalar)), truth), "the same decoder for any kind of bytes"
        with pytest.raises(ShardError, match="expected"):
            codecs.decode_image(data, np.zeros((H + 1, W, 3), np.uint8))
