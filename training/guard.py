"""Loss and gradient of a step -> whether it may touch the weights; and an average of the weights of all steps that did.

Everything stays on the device: nothing here makes a step wait for a number.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.team import local

WINDOW = 64
# Before so many steps there is no "usual".
WARM = 16
# Bad steps in a row after which going on is of no use.
PATIENCE = 20


class Guard:
    """A step is bad when its loss or gradient is not finite, or ``factor`` times the median of the last 64 (0 = never).

    A bad step leaves weights and moments as they are. Finite values are remembered even then, so that a level that is
    there to stay becomes the usual one.
    """

    def __init__(self, factor: float, device: torch.device) -> None:
        self._factor = factor
        self.recent = torch.full((2, WINDOW), torch.nan, device=device)
        # Good steps seen, bad ones in a row, bad ones in all.
        self.counts = torch.zeros(3, dtype=torch.int64, device=device)

    def judge(self, loss: Tensor, norm: Tensor) -> Tensor:
        """() float32: 1 = leave the weights alone; what a fused optimiser takes as ``found_inf``."""
        values = torch.stack([loss.detach().float(), norm.detach().float()])
        finite = values.isfinite().all()
        bad = ~finite
        if self._factor:
            usual = self.recent.nanmedian(dim=1).values
            bad = bad | ((values > self._factor * usual).any() & (self.counts[0] >= WARM))
        slot = self.counts[0] % WINDOW
        self.recent[:, slot] = torch.where(finite, values, self.recent[:, slot])
        self.counts += torch.stack([finite.long(), bad.long(), bad.long()])
        self.counts[1] *= bad.long()
        return bad.float()

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"recent": self.recent, "counts": self.counts}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up ``state``."""
        self.recent.copy_(state["recent"])
        self.counts.copy_(state["counts"])


class Average:
    """Exponential moving average of a model's weights; ``decay`` 0 keeps none. It starts fast: min(decay, (1 + t) / (10 + t))."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {}
        if decay:
            self.weights = {k: p.detach().clone() for k, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, bad: Tensor) -> None:
        """Move towards the weights after ``step``, unless it was ``bad``."""
        if not self.decay:
            return
        rate = (1 - bad) * (1 - min(self.decay, (1 + step) / (10 + step)))
        mean = [local(v) for v in self.weights.values()]
        change = torch._foreach_sub([local(p.detach()) for p in model.parameters()], mean)
        torch._foreach_mul_(change, rate)
        torch._foreach_add_(mean, change)
