"""Arrays -> an ONNX model that answers with them, whatever it is shown: heads of detectors without anybody's weights.

Written field by field in protobuf's wire format (onnx.proto), because the `onnx` package is not a dependency.
"""

from __future__ import annotations

import numpy as np

TYPES = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}


def constant_model(outputs: dict[str, np.ndarray], size: int = 416, batch: int = 1) -> bytes:
    """A model with input `images` (batch, 3, size, size) float32 and the constant ``outputs``."""
    graph = b""
    for name, value in outputs.items():
        tensor = b"".join(_int(1, d) for d in value.shape) + _int(2, TYPES[value.dtype]) + _text(8, f"{name}_c")
        tensor += _bytes(9, value.tobytes())
        graph += _bytes(1, _text(1, f"{name}_c") + _text(2, name) + _text(4, "Identity"))
        graph += _bytes(5, tensor)
    graph += _text(2, "constant") + _bytes(11, _value("images", 1, (batch, 3, size, size)))
    for name, value in outputs.items():
        graph += _bytes(12, _value(name, TYPES[value.dtype], value.shape))
    return _int(1, 8) + _bytes(8, _text(1, "") + _int(2, 13)) + _bytes(7, graph)


def _value(name: str, kind: int, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(_bytes(1, _int(1, d)) for d in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _int(1, kind) + _bytes(2, dims)))


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())
