"""A training's sizes and the device's free memory -> in how many parts to take a batch, and whether to keep activations.

The batch of a step stays what the job says: what is learnt does not depend on where.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable

import torch

from manifests.errors import JobError
from training.budget import Budget
from training.settings import Compute
from training.team import Team

# Of what is free; the rest goes to an allocator's gaps and to libraries.
SHARE = 0.85
log = logging.getLogger("training")


def free_bytes(device: torch.device) -> int:
    """Memory that a training may take on ``device``."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def fitted(
    compute: Compute, batch: int, estimate: Callable[[int, bool], Budget], me: Team, free: int | None = None
) -> Compute:
    """``compute`` with the fewest parts that fit, keeping activations rather than computing them again where both fit.

    ``estimate``: (pictures at a time, checkpointing) -> what they need on one device. Raises JobError when one picture
    alone does not fit.
    """
    if not compute.fit:
        return compute
    room = SHARE * (free_bytes(me.device) if free is None else free) * (1 if me.device.type == "cuda" else 1 / me.world)
    mine = batch // me.world
    # Recomputation costs a third more work; below a quarter of the batch at a time kernels starve, and cost more.
    plain = [(p, False) for p in range(1, mine + 1) if mine % p == 0]
    order = [*plain[:3], *((p, True) for p, _ in plain), *plain[3:]]
    for parts, checkpointing in order:
        need = needed(estimate(mine // parts, checkpointing), compute, me)
        if need <= room:
            log.info(
                "fit: %d pictures at a time, %s; %.1f of %.1f GB", mine // parts,
                "activations computed again" if checkpointing else "activations kept", need / 1e9, room / 1e9,
            )  # fmt: skip
            return dataclasses.replace(compute, accumulate=parts, checkpointing=checkpointing)
    least = needed(estimate(1, True), compute, me)
    hint = (
        "a smaller model or picture"
        if compute.parallel == "fsdp"
        else "parallel: fsdp over more workers, or a smaller model"
    )
    raise JobError(f"fit: one picture at a time needs {least / 1e9:.1f} GB, {room / 1e9:.1f} are free; take {hint}")


def needed(budget: Budget, compute: Compute, me: Team) -> float:
    """Bytes on one device: FSDP shares out weights, gradients and moments."""
    shared = budget.weights_bytes + budget.gradient_bytes + budget.optimiser_bytes
    if compute.parallel == "fsdp":
        return budget.total_bytes - shared * (1 - 1 / me.world)
    return budget.total_bytes
