"""Heads of Sapiens2 and ViTPose and their official weights, against transformers (an oracle here alone) and formulas."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file

from manifests.errors import InputError, JobError
from tests.test_modern import close, loaded, randomised, sapiens2, settings_of
from training import modern, official, official_heads
from training.backbones import SIZES
from training.heads import CHANNELS, HEADS, DenseModel

GRID, IMAGE = (16, 12), (256, 192)
# Of a small encoder, in the proportions of the 1B's published widths.
WIDTH = 48


def head_config(model: DenseModel, transformers):
    """transformers' description of our head, read off its layers' shapes."""
    state = model.state_dict()
    shuffled = "head.first.0.weight" in state
    kind = ".0.weight" if shuffled else ".weight"
    stem = "head.ups." if shuffled else "head.deconvs."
    ups = [v for k, v in state.items() if k.startswith(stem) and k.endswith(kind) and v.ndim == 4]
    convs = [v for k, v in state.items() if k.startswith("head.convs.") and v.ndim == 4]
    given = {
        "upsample_out_channels": [len(u) // 4 if shuffled else u.shape[1] for u in ups],
        "conv_out_channels": [len(c) for c in convs],
        "use_pixel_shuffle": shuffled,
    }
    if shuffled:
        given |= {"upsample_kernel_sizes": [3] * len(ups), "conv_kernel_sizes": [3] * len(convs)}
    scale = [v for k, v in state.items() if k.startswith("scale.convs.") and v.ndim == 4]
    if scale:
        hidden = [len(state[f"scale.out.{i}.weight"]) for i in (1, 3)]
        given |= {"scale_conv_out_channels": [len(s) for s in scale], "scale_final_hidden_sizes": hidden}
    return transformers.Sapiens2HeadConfig(**given).to_dict()


KINDS = {
    "parts": "Sapiens2ForSemanticSegmentation",
    "pose308": "Sapiens2ForPoseEstimation",
    "normal": "Sapiens2ForNormalEstimation",
    "pointmap": "Sapiens2ForPointmapEstimation",
}


@pytest.mark.parametrize("task", KINDS)
def test_task_models_are_those_of_transformers_and_load_from_official_files(task, tmp_path):
    transformers = pytest.importorskip("transformers")
    size = dataclasses.replace(modern.SIZES["sapiens2-tiny"], dim=96, depth=3, patch=16, full=1, heads=4, registers=8)
    model = randomised(DenseModel(size, task, WIDTH, head="sapiens2", grid=GRID))
    backbone = sapiens2(96, 3, 4, 1, device="cpu")
    model.encoder.load_state_dict(official.encoder_state(*official.recognise(backbone), model.encoder))
    file = {f"backbone.{k}": v for k, v in backbone.items()} | official_heads.official_head(model)
    save_file(file, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = transformers.Sapiens2Config(
        **settings_of(96, 3, 4, 1, IMAGE), num_labels=CHANNELS[task], head_config=head_config(model, transformers)
    )
    config.save_pretrained(tmp_path)
    theirs = loaded(getattr(transformers, KINDS[task]), tmp_path)
    images = torch.randn(2, 3, *IMAGE, generator=torch.Generator().manual_seed(1))
    # What transformers computes: periods that are not rounded.
    model.encoder.rope.periods = 100.0 ** (torch.arange(6) / 6)
    with torch.no_grad():
        expected, found = theirs(images), model(images)
    if task == "normal":
        # Before they are made unit: theirs leaves that to its post-processing.
        assert close(model.head(model.features(images)[0], images), expected.normals)
        assert torch.allclose(found.norm(dim=1), torch.tensor(1.0))
    elif task == "pointmap":
        assert close(found[:, :3], expected.pointmaps)
        assert close(found[:, 3, 0, 0], expected.scales.flatten())
        assert torch.equal(found[:, 3, 0, 0], found[:, 3, -1, 7])
    else:
        result = expected.logits if task == "parts" else expected.heatmaps
        assert found.shape[2:] == ((256, 192) if task == "parts" else (64, 48))
        assert close(found, result)
    # And back from the file, with wrong heads refused.
    again = DenseModel(size, task, WIDTH, head="sapiens2", grid=GRID)
    official_heads.load_task(tmp_path / "model.safetensors", again)
    state = model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in again.state_dict().items() if "periods" not in k)
    with pytest.raises(JobError, match="its head"):
        official_heads.load_task(tmp_path / "model.safetensors", DenseModel(size, task, 16, head="sapiens2", grid=GRID))
    save_file({f"backbone.{k}": v for k, v in backbone.items()}, tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match="no head in it"):
        official_heads.load_task(tmp_path / "bare.safetensors", again)


@pytest.mark.parametrize(
    ("size", "task", "millions"),
    [("0.4b", "normal", 57.9), ("1b", "normal", 83.9), ("5b", "normal", 249), ("1b", "pointmap", 167.7), ("1b", "pose308", 64.3),
     ("1b", "parts", 15.3)],
)  # fmt: skip
def test_heads_have_the_published_weights(size, task, millions):
    # sapiens.md 1.2; the point map's count leaves out its scale branch.
    with torch.device("meta"):
        head = HEADS["sapiens2"](SIZES[f"sapiens2-{size}"], task, 0)
    assert sum(p.numel() for p in head.parameters()) / 1e6 == pytest.approx(millions, rel=0.004)
    v1 = HEADS["deconv"]
    with torch.device("meta"):
        assert sum(p.numel() for p in v1(SIZES["1b"], "pose308", 0).parameters()) / 1e6 == pytest.approx(29.7, abs=0.05)


def test_the_scale_branch_has_the_published_layers():
    from training.heads_sapiens2 import scale_branch

    with torch.device("meta"):
        branch = scale_branch(1536, (64, 48))
    assert [tuple(p.shape) for n, p in branch.out.named_parameters() if "weight" in n] == [
        (512, 6144),
        (128, 512),
        (1, 128),
    ]


def albedo_reference(state, features):
    """The albedo head in float64 from its formula: RMS norm over the channels of each place, with a weight."""

    def settled(x, weight):
        x = x / torch.sqrt(x.square().mean(dim=1, keepdim=True) + 1e-6) * weight[:, None, None]
        return x / (1 + (-x).exp())

    def conv(x, name):
        pad = state[f"{name}.weight"].shape[-1] // 2
        return torch.nn.functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=pad)

    x = settled(conv(features, "input_conv.0"), state["input_conv.1.norm.weight"])
    for i in range(4):
        y = conv(x, f"upsample_blocks.{i}.0")
        b, c, h, w = y.shape
        # Pixel shuffle: channel 4 k + 2 r + s goes to row r, column s.
        y = y.view(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * w)
        x = settled(y, state[f"upsample_blocks.{i}.2.norm.weight"])
    for i in (0, 3, 6):
        x = settled(conv(x, f"conv_layers.{i}"), state[f"conv_layers.{i + 1}.norm.weight"])
    return conv(x, "conv_albedo")


def test_the_albedo_head_is_its_formula_in_float64():
    size = dataclasses.replace(modern.SIZES["sapiens2-tiny"], dim=32, depth=1, patch=16, full=None)
    model = randomised(DenseModel(size, "albedo", 24, head="sapiens2")).double()
    features = torch.randn(2, 32, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    state = {k.removeprefix("decode_head."): v for k, v in official_heads.official_head(model).items()}
    with torch.no_grad():
        found = model.head(features, torch.zeros(2, 3, 64, 48))
        assert close(found, albedo_reference(state, features), 1e-9)


def test_v1s_heads_are_their_formula_in_float64_and_take_official_names():
    """Pose (`head.*`, a quarter of the resolution) and parts (`decode_head.*`, half, then stretched)."""
    for task, last, stride in (("pose17", "final_layer", 4), ("parts28", "conv_seg", 2)):
        model = randomised(DenseModel(SIZES["small"], task, 0, head="deconv", grid=(4, 4))).double()
        ups = 2 if stride == 4 else 3
        named = {f"deconv_layers.{3 * i}.weight": f"head.deconvs.{3 * i}.weight" for i in range(ups)}
        named |= {f"conv_layers.{i}.{w}": f"head.convs.{i}.{w}" for i in (0, 3) for w in ("weight", "bias")}
        named |= {f"{last}.{w}": f"head.out.{w}" for w in ("weight", "bias")}
        theirs = {k: model.state_dict()[v] for k, v in named.items()}
        found = official_heads.head_state(theirs, model)
        assert all(torch.equal(found[k], v) for k, v in model.state_dict().items() if k.startswith("head."))
        assert len(found) == len(theirs)
        x = torch.randn(1, 384, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

        def settled(y):
            y = (y - y.mean((2, 3), keepdim=True)) / torch.sqrt(y.var((2, 3), correction=0, keepdim=True) + 1e-5)
            return y / (1 + (-y).exp())

        y = x
        for i in range(ups):
            y = settled(
                torch.nn.functional.conv_transpose2d(y, theirs[f"deconv_layers.{3 * i}.weight"], stride=2, padding=1)
            )
        for i in (0, 3):
            weight = theirs[f"conv_layers.{i}.weight"][:, :, 0, 0]
            y = settled(torch.einsum("oc,bchw->bohw", weight, y) + theirs[f"conv_layers.{i}.bias"][:, None, None])
        y = (
            torch.einsum("oc,bchw->bohw", theirs[f"{last}.weight"][:, :, 0, 0], y)
            + theirs[f"{last}.bias"][:, None, None]
        )
        images = torch.zeros(1, 3, 64, 64)
        if stride == 2:
            y = torch.nn.functional.interpolate(y, size=(64, 64), mode="bilinear", align_corners=False)
        with torch.no_grad():
            assert close(model.head(x, images), y, 1e-9)
        assert y.shape[2] == (16 if stride == 4 else 64)


@pytest.mark.parametrize("simple", [False, True])
def test_vitpose_is_that_of_transformers(simple, tmp_path):
    transformers = pytest.importorskip("transformers")
    backbone = transformers.VitPoseBackboneConfig(
        hidden_size=96, num_hidden_layers=2, num_attention_heads=3, image_size=[64, 48], patch_size=[16, 16], layer_norm_eps=1e-6
    )  # fmt: skip
    config = transformers.VitPoseConfig(backbone_config=backbone, use_simple_decoder=simple, num_labels=17)
    theirs = randomised(transformers.VitPoseForPoseEstimation(config))
    theirs.save_pretrained(tmp_path)
    from training.vit import Size

    model = DenseModel(
        Size(96, 2, 3, 16), "pose17", 0, head="vitpose_simple" if simple else "vitpose", grid=(4, 3), padding=2
    ).eval()
    official_heads.load_task(tmp_path / "model.safetensors", model)
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(images).heatmaps
        assert expected.shape == (2, 17, 16, 12)
        assert close(model(images), expected)
    assert {k.split(".")[0] for k in load_file(tmp_path / "model.safetensors")} == {"backbone", "head"}


def test_dpt_takes_any_resolution_with_a_fixed_number_of_tokens():
    torch.manual_seed(0)
    model = DenseModel(SIZES["sapiens2-tiny"], "normal", 16, head="dpt", seen=(64, 48)).eval()
    seen = []
    model.encoder.blocks[0].register_forward_hook(lambda m, i, o: seen.append(o.shape[1]))
    with torch.no_grad():
        for size in ((64, 48), (128, 96), (200, 152)):
            out = model(torch.randn(1, 3, *size))
            assert out.shape == (1, 3, *size)
    assert set(seen) == {5 + 48}
    # Detail comes through the resizer: a change that the encoder's small picture cannot show moves the answer.
    image = torch.zeros(1, 3, 128, 96)
    fine = image.clone()
    fine[..., ::2, ::2], fine[..., 1::2, ::2], fine[..., ::2, 1::2], fine[..., 1::2, 1::2] = 1, -1, -1, 1
    with torch.no_grad():
        small = torch.nn.functional.interpolate(
            fine, size=(64, 48), mode="bilinear", align_corners=False, antialias=True
        )
        assert small[..., 1:-1, 1:-1].abs().max() < 1e-5
        assert (model(fine) - model(image)).abs().max() > 1e-3
