"""A small memory geometry, and frames stored in a bank."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Geometry
from sam2_edge.runtime.memory.bank import MemoryBank
from sam2_edge.runtime.model import MemoryInputs

GEOMETRY = Geometry(image_size=64, hidden=8, memory_channels=4)


SPAN = 16


def store(
    bank: MemoryBank,
    frame: int,
    ids: list[int],
    values: list[float],
    *,
    conditioning: bool,
    tokens: int | None = None,
) -> None:
    """Write memories, pointers and, with `tokens`, cells filled with the given values."""
    side = GEOMETRY.embedding_size
    column = np.array(values, np.float32)
    rows, memory = bank.take_rows(len(ids))
    memory[:] = np.broadcast_to(column[:, None, None, None], (len(ids), 4, side, side))
    pointers = np.broadcast_to(column[:, None], (len(ids), 8))
    cells = None if tokens is None else np.repeat(column[:, None], tokens, axis=1).astype(np.int32)
    bank.write(frame, ids, rows, pointers, conditioning=conditioning, cells=cells)


def memories(batch: MemoryInputs) -> NDArray[np.float32]:
    """Return the first value of each memory of a batch [M, B], as `store` wrote it."""
    return np.asarray(batch.memory)[batch.memory_rows][:, :, 0, 0, 0]
