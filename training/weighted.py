"""Weights of rows -> the row that each place of an epoch shows: a heavy row at several places, a light one in some epochs.

Systematic sampling in integers: the weights lie end to end on a line, and as many marks as there are rows stand on it,
evenly spaced; each mark shows the row it falls into. So an epoch shows every row rows * weight / total times, rounded down
or up. From epoch to epoch the marks move on by the golden section of their spacing, so that a light row's turn comes
within three times 1 / its share, whatever the seed.
"""

from __future__ import annotations

import hashlib

import numpy as np

# 2^64 / the golden ratio.
GOLDEN = 0x9E3779B97F4A7C15


class Weighted:
    """``rates``: (rows,) finite float, 0 or more, not all 0: how often each row comes, relative to the others; ``key``:
    ints and strings. Holds 8 bytes a row. Raises ValueError.
    """

    def __init__(self, rates: np.ndarray, *key: int | str) -> None:
        rates = np.asarray(rates, np.float64)
        largest = rates.max(initial=0.0)
        if not (np.isfinite(rates).all() and (rates >= 0).all() and largest > 0):
            raise ValueError("weights of rows must be finite and 0 or more, and one of them above 0")
        self._rows = len(rates)
        # A power of two, so that nothing rounds, which keeps sums below 2^61; a row that counts at all counts for one.
        scale = 60 - int(np.frexp(largest)[1]) - self._rows.bit_length()
        parts = np.maximum(np.floor(np.ldexp(rates, scale)).astype(np.int64), rates > 0)
        self._ends = np.cumsum(parts)
        self._total = int(self._ends[-1])
        self.digest = hashlib.sha256(self._ends.astype("<i8").tobytes()).hexdigest()
        text = "/".join(map(str, key))
        self._first = int.from_bytes(hashlib.sha256(f"{text}/marks".encode()).digest()) % self._total

    def __call__(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """(K,) int64 places in 0..rows - 1 of ``epoch`` -> (K,) int64 rows, which rise with the places."""
        moved = (self._first + epoch * (self._total * GOLDEN >> 64)) % self._total
        # Mark p stands at (p * total + moved) / rows; in two parts, since the product passes 64 bits.
        whole, rest = divmod(self._total, self._rows)
        marks = places * np.int64(whole) + (places * np.int64(rest) + np.int64(moved)) // np.int64(self._rows)
        return np.searchsorted(self._ends, marks, side="right")
