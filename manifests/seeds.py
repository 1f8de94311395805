"""A key -> the one kind of random generator that anything in this project draws from."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(*key: int | str) -> np.random.Generator:
    """Philox keyed by the sha256 of ``key``: the same key gives the same stream on any machine, and streams never
    overlap.
    """
    words = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(words[:16], np.uint64)))
