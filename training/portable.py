"""A fine-tuned model -> an ONNX file that runs without torch, checked against torch on the spot.

The file takes pictures as they are (float32 sRGB 0..255, RGB, channels first) and gives the map as a user takes it:
normalisation and the task's reading are in the graph. Legend: B pictures, (h, w) the model's size, C channels.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manifests.errors import InputError, MaquetteError
from training.tasks import Reading
from training.transforms import MEAN, STD

# Largest difference from torch that may stay, in the map's own unit; onnxruntime adds in another order than torch.
TOLERANCE = 1e-4
INPUT = "image"
OPSET = 18
MOST = 4096


class Whole(nn.Module):
    """Normalisation, model and reading as one."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, reading: Reading) -> None:
        super().__init__()
        self.model, self.reading = model, reading
        self.register_buffer("mean", torch.from_numpy(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.from_numpy(STD)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Any:
        """(B, 3, h, w) float32 0..255 -> what the task's reading gives."""
        return self.reading(self.model((image - self.mean) / self.std))


def write_onnx(path: Path, model: nn.Module, reading: Reading, size: tuple[int, int], name: str) -> float:
    """Write ``model`` for any number of pictures of ``size`` (h, w) to ``path``, its output called ``name``; returns the largest
    difference from torch over batches of 1 and 3. Raises InputError (no exporter here), MaquetteError (it differs).
    """
    try:
        import onnxscript  # noqa: F401 - what torch's exporter needs and does not bring
    except ImportError:
        raise InputError("ONNX: pip install 'maquette[export]' for torch's exporter (onnx, onnxscript)") from None
    whole = Whole(model, reading).eval().cpu()
    example = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 255
    count = torch.export.Dim("batch", min=1, max=MOST)
    # The exporter tells of operators of packages that are not here, line after line.
    with warnings.catch_warnings(), quiet("torch.onnx"), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            whole, (example,), dynamo=True, dynamic_shapes={"image": {0: count}}, input_names=[INPUT],
            output_names=[name], opset_version=OPSET, verbose=False,
        )  # fmt: skip
        assert program is not None
        program.save(str(path))
    worst = difference(path, whole, size)
    if not worst <= TOLERANCE:
        raise MaquetteError(
            f"{path}: differs from torch by {worst:.2g}, {TOLERANCE:g} allowed; it was not written rightly"
        )
    return worst


def difference(path: Path, whole: nn.Module, size: tuple[int, int]) -> float:
    """The largest difference between onnxruntime's map and torch's, over batches of 1 and of 3 noise pictures."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for count in (1, 3):
        draws = torch.Generator().manual_seed(count)
        image = torch.rand(count, 3, *size, generator=draws) * 255
        with torch.no_grad():
            wanted = whole(image).numpy()
        found = session.run(None, {INPUT: image.numpy()})[0]
        worst = max(worst, float(np.abs(found - wanted).max()))
    return worst


@contextlib.contextmanager
def quiet(name: str) -> Any:
    """No warnings of the logger ``name`` meanwhile."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
