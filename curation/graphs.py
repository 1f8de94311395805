"""An ONNX file made for one size of picture -> the same graph for any size, where its nodes allow it.

Exporters write the size they were shown into the declarations of inputs, outputs and everything between, though most
convolutional detectors hold it nowhere else. Those declarations are dropped here, field by field in protobuf's wire format
(onnx.proto): the `onnx` package would be a dependency for this alone. Whether the graph then runs, only running it tells.
"""

from __future__ import annotations

from collections.abc import Iterator

# Field numbers of onnx.proto.
GRAPH, GRAPH_INPUT, GRAPH_OUTPUT, GRAPH_BETWEEN = 7, 11, 12, 13
VALUE_TYPE, TYPE_TENSOR, TENSOR_SHAPE, SHAPE_DIM = 2, 1, 2, 1
DIM_NAME = 2
CHANNELS_FIRST = 4


def any_size(model: bytes) -> bytes:
    """``model`` with height and width of its first input (N, C, H, W) left open. Raises ValueError where it is no ONNX."""
    try:
        return b"".join(_graph(value) if f == GRAPH else raw for f, value, raw in _fields(model))
    except (IndexError, TypeError) as error:
        raise ValueError(f"not an ONNX file ({error})") from None


def _graph(graph: bytes) -> bytes:
    out, first = [], True
    for f, value, raw in _fields(graph):
        if f == GRAPH_BETWEEN:
            continue
        if f == GRAPH_INPUT and first:
            raw, first = _message(f, _within(value, (VALUE_TYPE, TYPE_TENSOR, TENSOR_SHAPE), _open)), False
        elif f == GRAPH_OUTPUT:
            raw = _message(f, _within(value, (VALUE_TYPE, TYPE_TENSOR, TENSOR_SHAPE), None))
        out.append(raw)
    return _message(GRAPH, b"".join(out))


def _within(message: bytes, path: tuple[int, ...], change: object) -> bytes:
    """``message`` with the field at ``path`` changed, or left out where ``change`` is None."""
    out = []
    for f, value, raw in _fields(message):
        if f != path[0]:
            out.append(raw)
        elif len(path) > 1:
            out.append(_message(f, _within(value, path[1:], change)))
        elif callable(change):
            out.append(_message(f, change(value)))
    return b"".join(out)


def _open(shape: bytes) -> bytes:
    dims = [raw for f, _, raw in _fields(shape) if f == SHAPE_DIM]
    if len(dims) == CHANNELS_FIRST:
        dims[2:] = [_message(SHAPE_DIM, _message(DIM_NAME, name)) for name in (b"height", b"width")]
    return b"".join(dims)


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Number, content (empty of a plain number) and the whole of each field."""
    at = 0
    while at < len(message):
        start = at
        key, at = _varint(message, at)
        content, kind = b"", key & 7
        if kind == 0:
            _, at = _varint(message, at)
        elif kind == 2:
            length, at = _varint(message, at)
            content, at = message[at : at + length], at + length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"not an ONNX file (wire type {kind})")
        yield key >> 3, content, message[start:at]


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def _message(field: int, content: bytes) -> bytes:
    return _number(field << 3 | 2) + _number(len(content)) + content


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
