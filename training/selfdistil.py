"""Views of pictures -> Sapiens2's pre-training loss: a masked autoencoder, class tokens that agree with a teacher's, KoLeo.

L = L_MAE + 0.4 L_CL + 0.04 KoLeo (sapiens.md 2.4). The student sees two large views, a quarter of their patches each, and small
ones whole; the teacher, a slow average of the student, sees the large ones whole. Legend: B pictures, G = 2 large views, S small
ones, N patches, D width, C prototypes.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.backbones import encoder
from training.mae import MaskedAutoencoder
from training.settings import Distilled
from training.team import Team, local
from training.vit import Size, patchify

GLOBALS = 2


class Projector(nn.Module):
    """Class token -> logits over prototypes: three layers to a narrow unit vector, then its cosines with the prototypes (DINO)."""

    def __init__(self, dim: int, how: Distilled) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, how.hidden), nn.GELU(), nn.Linear(how.hidden, how.hidden), nn.GELU(), nn.Linear(how.hidden, how.bottleneck)
        )  # fmt: skip
        self.prototypes = nn.Parameter(torch.empty(how.prototypes, how.bottleneck))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.prototypes, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) -> (..., C) cosines."""
        return F.linear(F.normalize(self.mlp(tokens).float(), dim=-1), F.normalize(self.prototypes.float(), dim=-1))


class SelfDistilled(MaskedAutoencoder):
    """The student with its decoder, and the teacher, whose weights take no gradient and follow the student's.

    Its state holds all that a step leaves behind: the teacher, the centre and the number of steps.
    """

    def __init__(
        self, size: Size, decoder_dim: int, decoder_depth: int, mask_ratio: float, how: Distilled, **more: Any
    ) -> None:
        super().__init__(
            size, decoder_dim, decoder_depth, mask_ratio, inner=encoder(size, cls_token=True), **more
        )  # fmt: skip
        self.how = how
        self.projector = Projector(size.dim, how)
        self.teacher = nn.ModuleDict(
            {"encoder": copy.deepcopy(self.encoder), "projector": copy.deepcopy(self.projector)}
        )
        self.teacher.requires_grad_(False)
        self.register_buffer("centre", torch.zeros(how.prototypes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        # Of the step under way: the sum of the teacher's answers and, last, how many. No buffer, which DDP would overwrite.
        self._answers: Tensor | None = None

    def forward(  # type: ignore[override]
        self, images: Tensor, orders: Tensor, small: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """``images``: (B, G, 3, H, W) normalised; ``orders``: (B, G, N) int64, the first part seen; ``small``: (B, S, 3, h, w).

        Returns the loss and its three terms, unweighted.
        """
        b = images.shape[0]
        flat, order = images.flatten(0, 1), orders.flatten(0, 1)
        patches = patchify(flat, self.encoder.size.patch)
        encoded = self.encoder(flat, order[:, : self.seen(order)], patches=patches)[-1]
        rebuilt, _ = self.reconstruct(encoded, flat, patches, order)
        tokens = [encoded[:, 0].view(b, GLOBALS, -1)]
        if small is not None and small.shape[1]:
            tokens.append(self.encoder(small.flatten(0, 1))[-1][:, 0].view(b, small.shape[1], -1))
        student = self.projector(torch.cat(tokens, dim=1))
        with torch.no_grad():
            # Its own answers are of no use to it: whole pictures, no gradient.
            teacher = self.teacher["projector"](self.teacher["encoder"](flat)[-1][:, 0]).view(b, GLOBALS, -1)
            if self.training:
                sums = teacher.flatten(0, 1).sum(dim=0)
                mine = torch.cat([sums, sums.new_full((1,), b * GLOBALS)])
                self._answers = mine if self._answers is None else self._answers + mine
        agreed = self.agreement(student, teacher)
        spread = koleo(tokens[0])
        loss = rebuilt + self.how.weight * agreed + self.how.koleo * spread
        return loss, {"mae": rebuilt.detach(), "agreement": agreed.detach(), "koleo": spread.detach()}

    def agreement(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Cross entropy of each of the student's views (B, G + S, C) with each large view of the teacher's (B, G, C) but itself."""
        p = ((teacher - self.get_buffer("centre")) / self.temperature()).softmax(dim=-1)
        q = (student / self.how.student_temperature).log_softmax(dim=-1)
        pairs = -torch.einsum("bgc,bsc->bgs", p, q)
        other = ~torch.eye(GLOBALS, student.shape[1], dtype=torch.bool, device=student.device)
        return pairs[:, other].mean()

    def temperature(self) -> Tensor:
        """The teacher's, from its first to its last value over the warm-up."""
        first, last = self.how.teacher_temperature
        share = (self.get_buffer("steps") / max(1, self.how.warmup_steps)).clamp(max=1.0)
        return first + (last - first) * share

    @torch.no_grad()
    def after_step(self, me: Team) -> None:
        """Let teacher and centre follow; every worker calls, once a step."""
        keep = self.how.momentum
        for name in ("encoder", "projector"):
            mine, theirs = getattr(self, name), self.teacher[name]
            slow = [local(p) for p in theirs.parameters()]
            torch._foreach_lerp_(slow, [local(p.detach()) for p in mine.parameters()], 1 - keep)
        assert self._answers is not None, "after_step comes after a forward pass in training"
        # A mean over workers of sums and counts alike: their quotient is that of the sums over all.
        answers = me.mean(self._answers)
        self.get_buffer("centre").lerp_(answers[:-1] / answers[-1], 1 - self.how.centre_momentum)
        self._answers = None
        self.get_buffer("steps").add_(1)


def koleo(tokens: Tensor) -> Tensor:
    """Kozachenko-Leonenko spread of class tokens (B, G, D), unit, among those of the same view: the mean of -log of the
    distance to the nearest (Sablayrolles et al. 2019). 0 for a single picture.
    """
    if tokens.shape[0] < 2:
        return tokens.new_zeros(())
    x = F.normalize(tokens.float(), dim=-1).transpose(0, 1)
    # Who is nearest takes no gradient: the distance to them does.
    with torch.no_grad():
        close = x @ x.transpose(1, 2)
        close.diagonal(dim1=1, dim2=2).fill_(-2)
        nearest = close.argmax(dim=2)
    partner = x.gather(1, nearest[..., None].expand(-1, -1, x.shape[2]))
    return -((x - partner).square().sum(dim=-1) + 1e-8).sqrt().clamp(min=1e-8).log().mean()
