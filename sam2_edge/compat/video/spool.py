"""Outputs of frames in a file on disk: random access to every frame in bounded memory.

The file has no name, so it disappears when it is closed, however the process ends. It is in the
folder of Python's `tempfile`, which the environment variable TMPDIR chooses.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Geometry, MemoryRounding
from sam2_edge.errors import SinkError, SourceError

MEMORIES_CACHED = 16
"""Most recently used memories that are also kept outside the file: two objects' recent frames."""


class Spool:
    """A file of records of one size; a record that is no longer referenced is reused.

    Args:
        geometry: Of the model.
        rounding: With "bfloat16", memory is stored as 16 bits per value, without loss.

    Raises:
        SinkError: If the file cannot be made or written.
    """

    def __init__(self, geometry: Geometry, rounding: MemoryRounding) -> None:
        low = geometry.mask_size
        memory_type = np.uint16 if rounding == "bfloat16" else np.float32
        record = np.dtype(
            [
                ("object_score", np.float32),
                ("pointer", np.float32, (geometry.hidden,)),
                ("logits", np.float32, (low, low)),
                ("memory", memory_type, geometry.memory_shape),
                ("memory_cells", np.int32, (geometry.memory_tokens or 0,)),
            ]
        )
        self._record_size = record.itemsize
        self._fields: Mapping[str, Any] = record.fields or {}
        try:
            self._file = tempfile.TemporaryFile(prefix="sam2_edge.")  # noqa: SIM115 - see `close`
        except OSError as error:
            raise _write_error(error) from error
        self._free: list[int] = []
        self._count = 0
        self._memories: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    def add(
        self, logits: NDArray[np.float32], pointer: NDArray[np.float32], object_score: float
    ) -> StoredOutput:
        """Store an object's logits [s, s], pointer [C] and score on a frame."""
        if not self._free:
            self._free.append(self._count)
            self._count += 1
        output = StoredOutput(self, self._free.pop())
        self.write(output.slot, "object_score", np.float32(object_score))
        self.write(output.slot, "pointer", pointer)
        self.write(output.slot, "logits", logits)
        return output

    def close(self) -> None:
        """Delete the file."""
        self._file.close()
        self._memories.clear()

    def write(self, slot: int, field: str, value: NDArray[Any] | np.float32) -> None:
        """Write one field of a record."""
        dtype, offset = self._fields[field]
        rounded = dtype.base == np.uint16
        array = np.ascontiguousarray(value, np.float32 if rounded else dtype.base)
        if field == "memory":
            self._cache(slot, array)
        try:
            self._file.seek(slot * self._record_size + offset)
            self._file.write((_to_bfloat16(array) if rounded else array).tobytes())
        except (OSError, ValueError) as error:  # ValueError: closed
            raise _write_error(error) from error

    def read(self, slot: int, field: str) -> NDArray[Any]:
        """Read one field of a record."""
        if field == "memory" and slot in self._memories:
            self._memories.move_to_end(slot)
            return self._memories[slot]
        dtype, offset = self._fields[field]
        try:
            self._file.seek(slot * self._record_size + offset)
            stored = self._file.read(dtype.itemsize)
        except (OSError, ValueError) as error:
            raise SourceError(f"stored outputs cannot be read: {error}; call init_state") from error
        array: NDArray[Any] = np.frombuffer(stored, dtype.base).reshape(dtype.shape)
        if dtype.base == np.uint16:
            array = (array.astype(np.uint32) << 16).view(np.float32)
        if field == "memory":
            self._cache(slot, array)
        return array

    def release(self, slot: int) -> None:
        """Mark a record as free."""
        self._memories.pop(slot, None)
        self._free.append(slot)

    def _cache(self, slot: int, memory: NDArray[np.float32]) -> None:
        self._memories[slot] = memory
        self._memories.move_to_end(slot)
        if len(self._memories) > MEMORIES_CACHED:
            self._memories.popitem(last=False)


class StoredOutput:
    """One object's output on one frame. Its record is freed when this is no longer referenced.

    Attributes:
        has_memory: Whether a memory has been stored.
    """

    __slots__ = ("_spool", "has_memory", "slot")

    def __init__(self, spool: Spool, slot: int) -> None:
        self._spool, self.slot = spool, slot
        self.has_memory = False

    def __del__(self) -> None:
        self._spool.release(self.slot)

    @property
    def logits(self) -> NDArray[np.float32]:
        """[s, s] mask logits."""
        return self._spool.read(self.slot, "logits")

    @property
    def pointer(self) -> NDArray[np.float32]:
        """[C] object pointer."""
        return self._spool.read(self.slot, "pointer")

    @property
    def object_score(self) -> float:
        """Logit; above 0 if the object is present."""
        return float(self._spool.read(self.slot, "object_score"))

    @property
    def memory(self) -> NDArray[np.float32]:
        """[m, h, w]."""
        return self._spool.read(self.slot, "memory")

    @property
    def memory_cells(self) -> NDArray[np.int32]:
        """[N] cells of the memory to attend to."""
        return self._spool.read(self.slot, "memory_cells")

    def add_memory(
        self, memory: NDArray[np.float32], cells: NDArray[np.int32] | None = None
    ) -> None:
        """Store the memory [m, h, w] of the frame, and the cells [N] to attend to."""
        self._spool.write(self.slot, "memory", memory)
        if cells is not None:
            self._spool.write(self.slot, "memory_cells", cells)
        self.has_memory = True


def _to_bfloat16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the bfloat16 bits of values, rounded half to even."""
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _write_error(error: Exception) -> SinkError:
    # Not `gettempdir`, which fails if there is no such folder.
    place = tempfile.tempdir or "a temporary folder"
    return SinkError(
        f"outputs cannot be stored in {place}: {error}; set TMPDIR to a folder with room, and call "
        "init_state again if the state was closed"
    )
