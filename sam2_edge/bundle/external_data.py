"""The files beside an ONNX graph that its tensors name, read without the package onnx.

ONNX Runtime opens every file that a graph names; older releases also outside its folder. A graph is
therefore scanned before any library sees it. Only those parts of the format are read that may hold
a tensor (onnx.proto3 of ONNX 1.23); everything else is skipped by its length.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

MAX_FIELDS = 1_000_000
"""Fields read before a graph is refused; the image encoder of SAM 2.1 large has about 30,000."""

_MODEL, _TENSOR, _ENTRY = "ModelProto", "TensorProto", "StringStringEntryProto"
_MESSAGES: dict[str, dict[int, str]] = {
    _MODEL: {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: _TENSOR, 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: _TENSOR,
        6: "GraphProto",
        10: _TENSOR,
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {13: _ENTRY},
    _ENTRY: {},
}
"""By message, the numbers of the fields that may hold a tensor, and their messages."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def external_locations(path: Path) -> set[bytes]:
    """Return the locations of external data in a graph, as they are written there.

    Args:
        path: An ONNX file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a protobuf message, or has more than `MAX_FIELDS` fields.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _locations(data)


def _locations(data: mmap.mmap) -> set[bytes]:
    locations: set[bytes] = set()
    todo, fields = [(_MODEL, 0, len(data))], 0
    while todo:
        message, start, end = todo.pop()
        parts: dict[int, list[bytes]] = {1: [], 2: []}
        for number, begin, stop in _fields(data, start, end):
            fields += 1
            if fields > MAX_FIELDS:
                raise ValueError(f"more than {MAX_FIELDS} fields")
            if number in _MESSAGES[message]:
                todo.append((_MESSAGES[message][number], begin, stop))
            elif message == _ENTRY and number in parts:
                parts[number].append(data[begin:stop])
        # Repeated, the last value counts; here any of them does.
        if b"location" in parts[1]:
            locations.update(parts[2] or [b""])
    return locations


def _fields(data: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number and extent of every field between two positions.

    A field without a length holds no message: its number is given as 0.
    """
    while position < end:
        tag, position = _varint(data, position, end)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise ValueError(f"field number {number}")
        if kind == _VARINT:
            begin = position = _varint(data, position, end)[1]
        elif kind == _LENGTH:
            length, begin = _varint(data, position, end)
            position = begin + length
        elif kind in {_FIXED64, _FIXED32}:
            begin = position = position + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError(f"wire type {kind}")
        if position > end:
            raise ValueError("a field ends beyond its message")
        yield number if kind == _LENGTH else 0, begin, position


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """Return the number at a position and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number is cut off or too long")
