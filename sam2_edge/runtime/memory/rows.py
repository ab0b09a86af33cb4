"""The rows of one buffer in which the memories of all objects are stored.

The memory encoder writes the memories of a frame straight into consecutive rows, and memory
attention reads an object's rows by their numbers: nothing is copied between them. A row is free
again when nothing refers to it. The lowest free rows are taken first, so that a tracker in its
steady state repeats the same few rows, as captured CUDA graphs require.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Geometry
from sam2_edge.runtime.backends.base import Backend, Tensor

MIN_CAPACITY = 8
"""Rows of the smallest buffer: the memories of one object, and the one being written."""

SPARE_SHARE = 4
"""A buffer is replaced by a smaller one if fewer than one of this many rows are in use."""


class Row:
    """A row that holds a memory; it stays in use as long as this object exists."""

    __slots__ = ("__weakref__", "index")

    def __init__(self, index: int) -> None:
        self.index = index
        """Current number; it changes when the buffer is reallocated."""


class MemoryRows:
    """A buffer [R, ...] that grows and shrinks with the number of rows in use.

    Args:
        backend: Owns the buffer.
        geometry: Geometry of the model.
        max_rows: Rows that memory attention takes; None for no limit. Only rows in use exceed it.
    """

    def __init__(
        self, backend: Backend, geometry: Geometry, *, max_rows: int | None = None
    ) -> None:
        self._shape = geometry.memory_shape
        self._backend, self._dtype = backend, geometry.feature_dtype
        self._max_rows = max_rows
        self._used: list[weakref.ref[Row] | None] = []
        self._buffer: Tensor | None = None

    @property
    def buffer(self) -> Tensor:
        """All rows [R, ...]; replaced by another buffer at times."""
        assert self._buffer is not None  # callers have taken rows
        return self._buffer

    def take(self, count: int) -> tuple[list[Row], Tensor]:
        """Reserve consecutive rows; their contents are undefined.

        Returns:
            The rows, and a view of them [count, ...], valid until the next call.
        """
        first = self._find(count)
        in_use = sum(row is not None for row in self._live())
        if first is None or self._is_too_large(in_use + count):
            self._reallocate(self._capacity(in_use + count))
            first = in_use
        rows = [Row(first + offset) for offset in range(count)]
        for row in rows:
            self._used[row.index] = weakref.ref(row)
        view: Tensor = self.buffer[first : first + count]
        return rows, view

    def copy_of(self, row: Row) -> NDArray[Any]:
        """Copy the memory in a row to the host."""
        return np.array(self._backend.download(self.buffer[row.index]))

    def restore(self, memories: Sequence[NDArray[Any]]) -> list[Row]:
        """Copy memories from the host into rows."""
        if not memories:
            return []
        rows, target = self.take(len(memories))
        for index, memory in enumerate(memories):
            self._backend.copy(self._backend.upload(memory), target[index])
        return rows

    def clear(self) -> None:
        """Free the buffer."""
        self._buffer, self._used = None, []

    def _live(self) -> list[Row | None]:
        return [None if reference is None else reference() for reference in self._used]

    def _find(self, count: int) -> int | None:
        """Return the first of `count` free rows in succession; None if there are none."""
        free = 0
        for index, row in enumerate(self._live()):
            free = free + 1 if row is None else 0
            if free == count:
                return index - count + 1
        return None

    def _capacity(self, needed: int) -> int:
        """Return the rows of a new buffer: half as many again as are needed, if they may be."""
        roomy = max(MIN_CAPACITY, needed * 3 // 2)
        return roomy if self._max_rows is None else max(needed, min(roomy, self._max_rows))

    def _is_too_large(self, needed: int) -> bool:
        return len(self._used) > max(2 * MIN_CAPACITY, SPARE_SHARE * needed)

    def _reallocate(self, capacity: int) -> None:
        """Move the rows in use to the start of a new buffer."""
        old, live = self._buffer, [row for row in self._live() if row is not None]
        self._buffer = self._backend.empty((capacity, *self._shape), self._dtype)
        self._used = [None] * capacity
        for index, row in enumerate(live):
            assert old is not None  # it holds this row
            self._backend.copy(old[row.index], self._buffer[index])
            row.index = index
            self._used[index] = weakref.ref(row)


def used_rows(
    memory: NDArray[np.floating], rows: NDArray[np.int32]
) -> tuple[NDArray[np.floating], NDArray[np.int32]]:
    """Return the rows of a buffer [R, ...] that `rows` names, and their new numbers.

    The others may hold anything, such as values that no other dtype can represent.
    """
    used, numbers = np.unique(rows, return_inverse=True)
    return memory[used], numbers.reshape(rows.shape).astype(np.int32)
