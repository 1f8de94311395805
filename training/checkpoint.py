"""A training's whole state -> one safetensors file that is whole or absent, and back to the exact step.

One file, its JSON state in the header: nothing can be newer than the rest of it, and nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from manifests.errors import InputError, JobError, StorageError
from training.guard import Average, Guard
from training.team import as_placed, whole

KEEP = 2


@dataclasses.dataclass
class Kept:
    """What a checkpoint holds beside the step. ``told``: bad steps that were already reported."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    average: Average
    guard: Guard
    told: int = 0

    def save(self, path: Path, state: dict[str, Any], writes: bool) -> None:
        """Write everything and ``state`` (JSON) to ``path``; every worker calls, the one that ``writes`` does.

        Raises StorageError.
        """
        gathered = Gathered(writes)
        for name, value in self.model.state_dict().items():
            gathered.add(f"model.{name}", value)
        names = {id(p): n for n, p in self.model.named_parameters()}
        for parameter, moments in self.optimiser.state.items():
            for key, value in moments.items():
                gathered.add(f"optimiser.{names[id(parameter)]}.{key}", value)
        for name, value in self.average.weights.items():
            gathered.add(f"average.{name}", value)
        for name, value in self.guard.state().items():
            gathered.add(f"guard.{name}", value)
        gathered.add("generator.cpu", torch.get_rng_state())
        if torch.cuda.is_available():
            gathered.add("generator.cuda", torch.cuda.get_rng_state())
        if writes:
            write(path, gathered.tensors, state)

    def save_final(self, path: Path, state: dict[str, Any], writes: bool) -> None:
        """Write the weights to use: the averaged ones where there are any."""
        gathered = Gathered(writes)
        for name, value in (self.model.state_dict() | self.average.weights).items():
            # What only training needs (training/distil.py) is no part of the result.
            if not name.startswith("aid."):
                gathered.add(f"model.{name}", value)
        if writes:
            write(path, gathered.tensors, state)

    def load(self, path: Path) -> dict[str, Any]:
        """Fill everything from ``path``; returns its state. Raises InputError."""
        state, tensors = read(path)
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                value.copy_(as_placed(tensors[f"model.{name}"], value))
            for name, value in self.average.weights.items():
                value.copy_(as_placed(tensors[f"average.{name}"], value))
        for name, parameter in parameters.items():
            moments = under(tensors, f"optimiser.{name}.")
            if moments:
                self.optimiser.state[parameter] = {k: as_placed(v, parameter) for k, v in moments.items()}
        self.guard.load(under(tensors, "guard."))
        self.told = int(self.guard.counts[2])
        torch.set_rng_state(tensors["generator.cpu"])
        if torch.cuda.is_available() and "generator.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["generator.cuda"])
        return state


class Gathered:
    """Whole tensors by name on the processor, in the one process that writes them."""

    def __init__(self, writes: bool) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._writes = writes

    def add(self, name: str, tensor: Tensor) -> None:
        """Collect ``tensor``; where it is sharded every worker gives its part."""
        full = whole(tensor.detach())
        if self._writes:
            self.tensors[name] = full.cpu().contiguous()


def write(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Temporary file, fsync, rename. Raises StorageError."""
    fresh = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, fresh, metadata={"state": json.dumps(state)})
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except (OSError, SafetensorError) as error:
        fresh.unlink(missing_ok=True)
        raise StorageError(f"checkpoint {path}: {error}; free space and run again to go on") from None


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """State and tensors of a checkpoint. Raises InputError."""
    try:
        with safe_open(path, "pt") as file:
            state = json.loads((file.metadata() or {})["state"])
            return state, {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"checkpoint {path}: not readable ({error}); delete it to start from the one before") from None


def state_of(path: Path) -> dict[str, Any]:
    """The state in a checkpoint's header; no tensor is read. Raises InputError."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {})["state"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"checkpoint {path}: not readable ({error}); delete it to start from the one before") from None


def load_weights(path: Path, model: nn.Module) -> None:
    """Fill ``model`` from a checkpoint of the same model. Raises InputError, JobError."""
    _fill(path, model, under(read(path)[1], "model."))


def _fill(path: Path, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise JobError(
            f"init {path}: does not fit this model; set the same `model` ({str(error).splitlines()[0]})"
        ) from None


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose name begins with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def newest(folder: Path) -> Path | None:
    """The checkpoint of the largest step in ``folder``, or None."""
    found = sorted(folder.glob("step_*.safetensors"))
    return found[-1] if found else None


def prune(folder: Path) -> None:
    """Keep the newest KEEP checkpoints."""
    for path in sorted(folder.glob("step_*.safetensors"))[:-KEEP]:
        path.unlink(missing_ok=True)


def check_same(was: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Raise JobError naming the settings in which a checkpoint's digest differs from the job's."""
    if was["sha256"] == now["sha256"]:
        return
    changed = sorted(
        k for k in was["fields"].keys() | now["fields"].keys() if was["fields"].get(k) != now["fields"].get(k)
    )
    raise JobError(
        f"{folder}: trained with other {', '.join(changed)}; give the job a new `name`, or delete the folder"
    )
