"""Model and optimiser -> one safetensors file that is whole or absent, and back to the exact step."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from manifests.errors import InputError, JobError, StorageError

KEEP = 2


def save(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer | None, state: dict[str, Any]) -> None:
    """Write weights, optimiser moments and ``state`` (JSON) to ``path``: temporary file, fsync, rename. Raises StorageError."""
    tensors = {f"model.{k}": v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if optimiser is not None:
        names = {id(p): n for n, p in model.named_parameters()}
        for parameter, moments in optimiser.state.items():
            for key, value in moments.items():
                tensors[f"optimiser.{names[id(parameter)]}.{key}"] = value.detach().cpu().contiguous()
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


def load(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer | None) -> dict[str, Any]:
    """Fill ``model`` and ``optimiser`` from ``path``; returns its state. Raises InputError."""
    try:
        with safe_open(path, "pt") as file:
            state = json.loads((file.metadata() or {})["state"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"checkpoint {path}: not readable ({error}); delete it to start from the one before") from None
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    if optimiser is not None:
        for name, parameter in model.named_parameters():
            prefix = f"optimiser.{name}."
            moments = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            if moments:
                optimiser.state[parameter] = moments
    return state


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
