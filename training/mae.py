"""Pictures -> the loss of a masked autoencoder (He et al. 2022): see a quarter of the patches, predict the rest.

Legend: B batch, N patches, M masked, D width, P patch side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.vit import Block, Encoder, Size, gather, init_weights, patchify, sincos


class MaskedAutoencoder(nn.Module):
    """Encoder on the visible patches; a light decoder that keeps the shuffled order and predicts masked patches
    alone.
    """

    def __init__(self, size: Size, decoder_dim: int, decoder_depth: int, mask_ratio: float) -> None:
        super().__init__()
        self.mask_ratio = mask_ratio
        self.encoder = Encoder(size)
        self.to_decoder = nn.Linear(size.dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        heads = max(1, decoder_dim // 32)
        self.decoder = nn.ModuleList(Block(decoder_dim, heads) for _ in range(decoder_depth))
        self.norm = nn.LayerNorm(decoder_dim, eps=1e-6)
        self.head = nn.Linear(decoder_dim, 3 * size.patch**2)
        for module in (self.to_decoder, self.decoder, self.head):
            module.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, images: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """``images``: (B, 3, H, W) normalised. ``order``: (B, N) int64 permutations; the first quarter is seen.

        Returns the loss (scalar: mean squared error on masked patches, each normalised by its own mean and variance)
        and the
        prediction (B, M, 3 P P).
        """
        patch = self.encoder.size.patch
        n = order.shape[1]
        seen = n - int(n * self.mask_ratio)
        keep, masked = order[:, :seen], order[:, seen:]
        visible = self.to_decoder(self.encoder(images, keep)[-1])
        grid = (images.shape[2] // patch, images.shape[3] // patch)
        positions = gather(sincos(grid, visible.shape[-1], images.device).expand(len(images), -1, -1), order)
        x = torch.cat([visible, self.mask_token.expand(len(images), n - seen, -1)], dim=1) + positions
        for block in self.decoder:
            x = block(x)
        prediction = self.head(self.norm(x[:, seen:])).float()
        target = normalised(gather(patchify(images, patch), masked).float())
        return ((prediction - target) ** 2).mean(), prediction


def normalised(patches: Tensor) -> Tensor:
    """Patches (..., 3 P P) with their own mean taken off and divided by their own deviation (unbiased, eps 1e-6)."""
    mean, variance = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()
