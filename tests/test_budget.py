"""What a step takes, by formula: against the published tables, torch's own counter and the tensors torch keeps."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from manifests.errors import JobError
from training import vit
from training.backbones import SIZES, encoder
from training.budget import Shape, budget, encoder_flops
from training.heads import DenseModel
from training.mae import MaskedAutoencoder
from training.modern import Modern

BATCH = 3
CASES = {
    "mae": ("tiny", 128, 96, "mae", Shape(decoder_dim=96, decoder_depth=2)),
    "mae as v1": ("small", 160, 128, "mae", Shape()),
    "cross": ("tiny", 128, 96, "mae", Shape(cross=True, predict=0.33)),
    "light": ("tiny", 128, 96, "normal", Shape(head_width=64)),
    "deconv": ("small", 96, 64, "depth", Shape(head="deconv")),
    "sapiens2 mae": ("sapiens2-tiny", 128, 96, "mae", Shape(decoder_dim=96, decoder_depth=2)),
    "sapiens2 normals": ("sapiens2-tiny", 128, 96, "normal", Shape(head="sapiens2", head_width=64)),
    "sapiens2 parts": ("sapiens2-tiny", 128, 96, "parts", Shape(head="sapiens2", head_width=64)),
    "several": ("tiny", 128, 96, "normal", Shape(head_width=32, others=("depth", "parts"))),
}


def step(size, height, width, task, shape, checkpointing):
    """The model, and a function that runs its forward pass to a scalar."""
    torch.manual_seed(0)
    s = SIZES[size]
    images = torch.randn(BATCH, 3, height, width)
    if task == "mae":
        model = MaskedAutoencoder(
            s, shape.decoder_dim, shape.decoder_depth, 0.75, cross=shape.cross, predict=shape.predict,
            inner=encoder(s) if isinstance(s, Modern) else None,
        )  # fmt: skip
        order = torch.stack([torch.randperm(height * width // s.patch**2) for _ in range(BATCH)])
        run = lambda: model(images, order)[0]  # noqa: E731
    else:
        model = DenseModel(s, task, shape.head_width, head=shape.head, others=shape.others)
        run = lambda: sum(y.float().sum() for y in model(images, every=True).values())  # noqa: E731
    vit.set_checkpointing(model, checkpointing)
    return model, run


def kept_bytes(model, run, dtype) -> int:
    """Bytes of the storages that autograd keeps, each once; weights and their copies in bfloat16 left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    shapes = {tuple(p.shape) for p in model.parameters()} | {tuple(p.shape[::-1]) for p in model.parameters()}
    found = {}

    def pack(tensor):
        # What autograd keeps of a hook must not lead back to its own graph: neither would ever be freed.
        tensor = tensor.detach()
        storage = tensor.untyped_storage()
        copy = tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in shapes
        if storage.data_ptr() not in weights and not copy:
            # The tensor itself is held: a freed one's address would be given out again.
            found[storage.data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"),
    ):
        loss = run()
    assert torch.isfinite(loss)
    return sum(t.untyped_storage().nbytes() for t in found.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_activations_are_what_autograd_keeps(case, checkpointing, dtype):
    model, run = step(*CASES[case], checkpointing)
    size, height, width, task, shape = CASES[case]
    found = budget(size, height, width, BATCH, task, checkpointing, dtype, shape)
    assert found.activation_bytes == pytest.approx(kept_bytes(model, run, dtype), rel=0.15)
    assert found.parameters == sum(p.numel() for p in model.parameters())


# Its batch norms keep less than is counted: memory is overestimated by a quarter at this size.
CASES_OF_FLOPS = CASES | {"vitpose": ("tiny", 128, 96, "pose17", Shape(head="vitpose", head_width=64))}


@pytest.mark.parametrize("case", CASES_OF_FLOPS)
def test_flops_are_what_torch_counts(case):
    size, height, width, task, shape = CASES_OF_FLOPS[case]
    _, run = step(*CASES_OF_FLOPS[case], False)
    found = budget(size, height, width, BATCH, task, False, "float32", shape)
    # Torch counts attention as plain products only; its fused kernel for CPUs is not in its table.
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            run()
        with FlopCounterMode(display=False) as both:
            run().backward()
    assert forward.get_total_flops() == BATCH * found.forward_flops_per_image
    # Pixels get no gradient, so the first layers cost less than three forward passes.
    assert both.get_total_flops() == pytest.approx(BATCH * found.flops_per_image, rel=0.03)


@pytest.mark.parametrize(
    ("size", "tera_macs_1024x768", "tera_macs_1024x1024"),
    [("large", 1.395, 2.066), ("0.6b", 2.711, 3.957), ("1b", 4.645, 6.707), ("2b", 8.272, 11.80)],
)
def test_the_encoders_work_is_the_published_one(size, tera_macs_1024x768, tera_macs_1024x1024):
    # sapiens.md 1.1, measured on the released code, class token included: 1 of 3073 tokens, 0.05 %.
    for width, published in ((768, tera_macs_1024x768), (1024, tera_macs_1024x1024)):
        encoder = encoder_flops(size, 1024 // 16 * width // 16)
        assert encoder / 2e12 == pytest.approx(published, rel=2e-3)


@pytest.mark.parametrize(
    ("size", "tera_macs"), [("0.1b", 0.526), ("0.4b", 1.684), ("0.8b", 3.284), ("1b", 5.648), ("5b", 18.19)]
)
def test_sapiens2s_work_is_the_published_one(size, tera_macs):
    # sapiens.md 1.2, measured on the released code at 3081 tokens.
    assert encoder_flops(f"sapiens2-{size}", 3072) / 2e12 == pytest.approx(tera_macs, rel=2e-3)


def test_a_2b_fine_tune_fits_80_gb_with_checkpointing_alone():
    found = {c: budget("2b", 1024, 768, 1, "normal", c) for c in (False, True)}
    assert found[True].total_bytes < 75e9
    assert found[True].activation_bytes < found[False].activation_bytes / 4
    # Weights, gradients and two moments in float32 are 16 bytes a parameter whatever the batch.
    states = found[True].weights_bytes + found[True].gradient_bytes + found[True].optimiser_bytes
    assert states == 16 * found[True].parameters


def test_what_does_not_exist_is_refused_in_a_sentence():
    for bad in (("huge", 64, 64, 1, "mae"), ("tiny", 64, 64, 1, "walk")):
        with pytest.raises(JobError, match="sizes are"):
            budget(*bad, False)
    with pytest.raises(JobError, match="multiples of 16"):
        budget("large", 1000, 768, 1, "mae", False)


def test_the_command_lists_what_the_formulas_say():
    from typer.testing import CliRunner

    from pipeline.cli import app

    said = CliRunner().invoke(app, ["models", "--json", "--batch", "2"])
    assert said.exit_code == 0, said.output
    rows = {r["model"]: r for r in json.loads(said.output)}
    assert list(rows) == list(SIZES)
    assert rows["sapiens2-0.1b"]["encoder_parameters"] == 113_993_472
    assert rows["large"]["encoder_parameters"] == 307_295_232
    expected = budget("2b", 1024, 768, 2, "normal", True)
    assert rows["2b"]["normal"]["checkpointed"]["total_bytes"] == expected.total_bytes
    table = CliRunner().invoke(app, ["models"])
    line = next(li.split() for li in table.output.splitlines() if li.split()[:1] == ["large"])
    assert line[1:5] == ["0.3B", "1024x24", "307.3", "M"]
    wrong = CliRunner().invoke(app, ["models", "--pretrain-at", "big"])
    assert "expected two numbers" in str(wrong.exception)
