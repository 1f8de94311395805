"""Environment variables of a launcher -> who this process is among the workers, and a model that trains as one with theirs.

torchrun and Ray Train set the same variables; without them a process trains alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from manifests.errors import JobError
from training.settings import Compute
from training.vit import units


@dataclasses.dataclass(frozen=True)
class Team:
    """``rank`` of ``world`` processes, and the device this one computes on."""

    rank: int
    world: int
    device: torch.device

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all workers of a tensor that each of them has; every worker gets the same bits."""
        if self.world > 1:
            dist.all_reduce(value)
            value = value / self.world
        return value

    def wait(self) -> None:
        """Return once every worker has come here."""
        if self.world > 1:
            dist.barrier()


def join(compute: Compute) -> Team:
    """Take part in the process group that the launcher's variables describe. Raises JobError as ``device_for``."""
    device = device_for(compute)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Team(0, 1, device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Team(dist.get_rank(), dist.get_world_size(), device)


def device_for(compute: Compute) -> torch.device:
    """This process's own GPU, or the processor. Raises JobError when a GPU is asked for in vain."""
    found = torch.cuda.is_available()
    if compute.gpu == "yes" and not found:
        raise JobError("compute.gpu: yes, but torch sees no GPU here; set auto, or run where there is one")
    place = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", place) if found and compute.gpu != "no" else torch.device("cpu")


def leave() -> None:
    """End this process's part in a group that ``join`` began."""
    if dist.is_initialized():
        dist.destroy_process_group()


def precision(compute: Compute, device: torch.device) -> str:
    """What `auto` comes to on ``device``: float32 or bfloat16."""
    if compute.precision != "auto":
        return compute.precision
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def share_out(model: nn.Module, compute: Compute, team: Team, dtype: str) -> nn.Module:
    """``model`` as it is to be called: itself alone, wrapped by DDP, or with its blocks sharded in place (FSDP2)."""
    if compute.parallel == "fsdp" and (team.world > 1 or dist.is_initialized()):
        narrow = torch.bfloat16 if dtype == "bfloat16" else None
        policy = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32)
        mesh = init_device_mesh(team.device.type, (team.world,))
        for module in units(model):
            fully_shard(module, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy)
        return model
    if team.world > 1:
        ids = [team.device.index] if team.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
    return model


@contextlib.contextmanager
def quiet(model: nn.Module, last: bool) -> Iterator[None]:
    """Around one part of an accumulated step: gradients are exchanged in the ``last`` alone."""
    if isinstance(model, DistributedDataParallel) and not last:
        with model.no_sync():
            yield
        return
    if hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(last)  # type: ignore[operator]
    yield


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded; every worker must call this in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def as_placed(tensor: Tensor, like: Tensor) -> Tensor:
    """``tensor`` on the device and in the shards of ``like``."""
    tensor = tensor.to(like.device)
    if isinstance(like, DTensor) and tensor.shape == like.shape:
        return distribute_tensor(tensor, like.device_mesh, like.placements)
    return tensor


def local(tensor: Tensor) -> Tensor:
    """This worker's part."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
