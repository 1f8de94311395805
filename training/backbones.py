"""A backbone's name -> its size and its encoder: the plain transformers of Sapiens v1 and MAE, and the modern ones."""

from __future__ import annotations

from training import modern, vit
from training.modern import Modern, ModernEncoder
from training.vit import Encoder, Size


def encoder(
    size: Size,
    grid: tuple[int, int] | None = None,
    *,
    cls_token: bool = False,
    padding: int = 0,
    eps: float = 1e-6,
) -> Encoder | ModernEncoder:
    """An encoder of ``size``, untrained. ``grid``: of stored positions; ``cls_token``, ``padding``, ``eps``: of the plain
    ones, for the modern have a class token, no padding and an epsilon of their own.
    """
    if isinstance(size, Modern):
        return ModernEncoder(size, grid)
    return Encoder(size, grid, cls_token=cls_token, padding=padding, eps=eps)


SIZES: dict[str, Size] = {**vit.SIZES, **modern.SIZES}
