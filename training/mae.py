"""Pictures -> the loss of a masked autoencoder (He et al. 2022): see a quarter of the patches, predict the rest.

Legend: B batch, N patches, S seen, M predicted, D width, P patch side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.modern import ModernEncoder
from training.vit import (
    Block,
    CrossBlock,
    Encoder,
    Size,
    gather,
    init_weights,
    patchify,
    resize_positions,
    sincos,
    through,
)


class MaskedAutoencoder(nn.Module):
    """Encoder on the visible patches; a light decoder that keeps the shuffled order and predicts masked patches
    alone.

    ``cross``: the decoder's masked tokens look at seen ones only (CrossMAE), ``predict``: share of the masked patches that
    are predicted; both cheapen the decoder, which is 40 % of the work of Sapiens 0.3B at 1024 px. ``grid``: keep
    positions as frozen weights, as official checkpoints do; None = computed. ``inner``: an encoder of another kind, made
    already (training/modern.py).
    """

    def __init__(
        self,
        size: Size,
        decoder_dim: int,
        decoder_depth: int,
        mask_ratio: float,
        *,
        decoder_heads: int | None = None,
        cross: bool = False,
        predict: float = 1.0,
        grid: tuple[int, int] | None = None,
        eps: float = 1e-6,
        inner: Encoder | ModernEncoder | None = None,
    ) -> None:
        super().__init__()
        self.mask_ratio, self.predict, self.cross, self.grid = mask_ratio, predict, cross, grid
        self.checkpointing = False
        self.encoder: Encoder | ModernEncoder = inner or Encoder(size, grid, cls_token=True, eps=eps)
        self.to_decoder = nn.Linear(size.dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.position_tokens = None
        if grid is not None:
            places = sincos(grid, decoder_dim, torch.get_default_device())
            self.position_tokens = nn.Parameter(torch.cat([torch.zeros(1, 1, decoder_dim), places], dim=1), False)
            assert self.encoder.embed.position_tokens is not None
            self.encoder.embed.position_tokens.requires_grad_(False)
        heads = decoder_heads or max(1, decoder_dim // 32)
        kind = CrossBlock if cross else Block
        self.decoder = nn.ModuleList(kind(decoder_dim, heads, eps) for _ in range(decoder_depth))
        self.norm = nn.LayerNorm(decoder_dim, eps=eps)
        self.head = nn.Linear(decoder_dim, 3 * size.patch**2)
        for module in (self.to_decoder, self.decoder, self.head):
            module.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, images: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """``images``: (B, 3, H, W) normalised. ``order``: (B, N) int64 permutations; the first quarter is seen.

        Returns the loss (scalar: mean squared error on predicted patches, each normalised by its own mean and variance)
        and the prediction (B, M, 3 P P) of the patches that come next in ``order``.
        """
        patches = patchify(images, self.encoder.size.patch)
        encoded = self.encoder(images, order[:, : self.seen(order)], patches=patches)[-1]
        return self.reconstruct(encoded, images, patches, order)

    def seen(self, order: Tensor) -> int:
        """How many patches of ``order`` (B, N) are seen."""
        return counts(order.shape[1], self.mask_ratio, self.predict)[0]

    def reconstruct(self, encoded: Tensor, images: Tensor, patches: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's half of ``forward``. ``encoded``: (B, T, D), the seen patches last; ``patches``: (B, N, 3 P P)."""
        patch = self.encoder.size.patch
        seen, predicted = counts(order.shape[1], self.mask_ratio, self.predict)
        masked = order[:, seen : seen + predicted]
        visible = self.to_decoder(encoded)
        grid = (images.shape[2] // patch, images.shape[3] // patch)
        cls_place, places = self.places(grid, images.device)
        at = F.embedding(order[:, :seen], places)
        visible = visible + torch.cat([cls_place.expand(at.shape[0], visible.shape[1] - seen, -1), at], dim=1)
        x = self.decode(visible, masked, self.mask_token[0] + places)
        prediction = self.head(self.norm(x)).float()
        # Normalised where they lie: after the gather a compiler would fetch them by index once for each statistic.
        return F.mse_loss(prediction, gather(normalised(patches.float()), masked)), prediction

    def decode(self, visible: Tensor, masked: Tensor, queries: Tensor) -> Tensor:
        """``visible``: (B, 1 + S, D) with the class token, ``queries``: (N, D) of each place, of which (B, M) int64 ``masked``
        are asked -> (B, M, D).
        """
        x = F.embedding(masked, queries)
        if self.cross:
            for block in self.decoder:
                x = through(block, self.checkpointing, x, visible)
            return x
        x = torch.cat([visible, x], dim=1)
        last = len(self.decoder) - 1
        for i, block in enumerate(self.decoder):
            # What the last block would make of seen tokens is looked at by nobody.
            first = visible.shape[1] if i == last else 0
            # Before the first block a masked token is its place's alone.
            x = through(block, self.checkpointing, x, first, *((masked, queries) if i == 0 else ()))
        return x

    def places(self, grid: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        """The decoder's positions of the class token (1, 1, D) and of the patches (N, D)."""
        if self.position_tokens is None or self.grid is None:
            dim = self.mask_token.shape[-1]
            return torch.zeros(1, 1, dim, device=device), sincos(grid, dim, device)[0]
        return self.position_tokens[:, :1], resize_positions(self.position_tokens[:, 1:], self.grid, grid)[0]


def counts(patches: int, mask_ratio: float, predict: float) -> tuple[int, int]:
    """How many of ``patches`` are seen, and how many of the others predicted."""
    masked = int(patches * mask_ratio)
    return patches - masked, max(1, round(masked * predict))


def normalised(patches: Tensor) -> Tensor:
    """Patches (..., 3 P P) with their own mean taken off and divided by their own deviation (unbiased, eps 1e-6).

    A layer norm's deviation is the biased one: one pass of its kernel and a factor, a tenth of var_mean's time on a CPU.
    """
    n = patches.shape[-1]
    biased = (n - 1) / n
    scale = torch.full((n,), biased**0.5, device=patches.device, dtype=patches.dtype)
    return F.layer_norm(patches, (n,), scale, None, 1e-6 * biased)
