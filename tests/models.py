"""Small fine-tuned checkpoints for tests: of random weights, or trained for a moment on balls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from manifests import job as jobs
from training import checkpoint, settings
from training.finetune import built, finetune


def section(path: Path, task: str, **changes: Any) -> settings.Finetune:
    """The settings of a fine-tune of ``task`` at 32x48; ``path``: a folder for its job."""
    optim = {"steps": 1, "batch": 8, "lr": 3e-3, "warmup_steps": 5}
    tree = {"name": task, "task": task, "width": 32, "height": 48, "head_width": 16, "init": "random", "optim": optim}
    path.mkdir(parents=True, exist_ok=True)
    (path / "job.yaml").write_text(jobs.dump(jobs.check({"name": "t", "finetune": [tree | changes]})))
    return settings.read(path)["finetune"][0]


def random(folder: Path, task: str, seed: int = 0, **changes: Any) -> Path:
    """A checkpoint of random weights, with the header of a real one."""
    how = section(folder, task, **changes)
    torch.manual_seed(seed)
    model = built(how)
    path = folder / "finetune" / task / "model.safetensors"
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    checkpoint.write(path, tensors, {"step": 1, "digest": settings.digest(how, ["test"], "float32")})
    return path


def trained(folder: Path, task: str, steps: int, **changes: Any) -> Path:
    """A checkpoint trained on the balls in ``folder``/render."""
    plain = {"crop": (0.4, 1.0), "brightness": 0.0, "hue_deg": 0.0}
    optim = {"steps": steps, "batch": 8, "lr": 3e-3, "warmup_steps": 5}
    how = section(folder, task, optim=optim, augment=plain, compute={"gpu": "no", "precision": "float32"}, **changes)
    torch.set_num_threads(1)
    return finetune(folder, how)
