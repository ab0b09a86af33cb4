"""What frames leave behind, in a file on disk: random access to every frame in bounded memory.

The file has no name, so that it goes when it is closed, however the process ends. Its folder is
that of Python's `tempfile`: the environment variable TMPDIR chooses another.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Geometry, MemoryRounding
from sam2_edge.errors import SinkError, SourceError

MEMORIES_CACHED = 16
"""Memories kept outside the file, the last used ones: two objects' recent frames."""


class Spool:
    """Records of one size in a file; a record that nobody holds is used again.

    rounding: with "bfloat16" memory is stored as its upper 16 bits, which is all that it has.

    Raises SinkError when the file cannot be made or written.
    """

    def __init__(self, geometry: Geometry, rounding: MemoryRounding) -> None:
        low, side = geometry.mask_size, geometry.embedding_size
        self._memory_shape = (geometry.memory_channels, side, side)
        self._halved = rounding == "bfloat16"
        self._fields = np.dtype(
            [
                ("object_score", np.float32),
                ("pointer", np.float32, (geometry.hidden,)),
                ("logits", np.float32, (low, low)),
                ("memory", np.uint16 if self._halved else np.float32, self._memory_shape),
                ("memory_cells", np.int32, (geometry.memory_tokens or 0,)),
            ]
        )
        try:
            self._file = tempfile.TemporaryFile(prefix="sam2_edge.")  # noqa: SIM115 # `close` closes it
        except OSError as error:
            raise _no_room(error) from error
        self._free: list[int] = []
        self._count = 0
        self._memories: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    @property
    def records(self) -> int:
        """Records that the file has room for, in use or free."""
        return self._count

    @property
    def in_use(self) -> int:
        """Records that somebody holds."""
        return self._count - len(self._free)

    def add(
        self, logits: NDArray[np.float32], pointer: NDArray[np.float32], object_score: float
    ) -> FrameOutput:
        """Store an object's logits [s,s], pointer [C] and score on a frame."""
        output = FrameOutput(self, self._take())
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
        kind, offset = self._field(field)
        halved = kind.base == np.uint16
        array = np.ascontiguousarray(value, np.float32 if halved else kind.base)
        if field == "memory":
            self._keep(slot, array)
        try:
            self._file.seek(slot * self._fields.itemsize + offset)
            self._file.write((_upper_bits(array) if halved else array).tobytes())
        except (OSError, ValueError) as error:  # ValueError: closed
            raise _no_room(error) from error

    def read(self, slot: int, field: str) -> NDArray[Any]:
        """Read one field of a record."""
        if field == "memory" and slot in self._memories:
            self._memories.move_to_end(slot)
            return self._memories[slot]
        kind, offset = self._field(field)
        try:
            self._file.seek(slot * self._fields.itemsize + offset)
            stored = self._file.read(kind.itemsize)
        except (OSError, ValueError) as error:
            raise SourceError(f"stored results cannot be read: {error}; call init_state") from error
        array = np.frombuffer(stored, kind.base).reshape(kind.shape)
        if kind.base == np.uint16:
            array = (array.astype(np.uint32) << 16).view(np.float32)
        if field == "memory":
            self._keep(slot, array)
        return array

    def release(self, slot: int) -> None:
        """Let a record be used again."""
        self._memories.pop(slot, None)
        self._free.append(slot)

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        self._count += 1
        return self._count - 1

    def _field(self, name: str) -> tuple[np.dtype[np.generic], int]:
        fields = self._fields.fields
        assert fields is not None  # it is a structure
        kind, offset = fields[name][:2]
        return cast("np.dtype[np.generic]", kind), int(offset)

    def _keep(self, slot: int, memory: NDArray[np.float32]) -> None:
        self._memories[slot] = memory
        self._memories.move_to_end(slot)
        if len(self._memories) > MEMORIES_CACHED:
            self._memories.popitem(last=False)


class FrameOutput:
    """What one object has on one frame. Its record is free again when nobody holds this."""

    __slots__ = ("_spool", "has_memory", "slot")

    def __init__(self, spool: Spool, slot: int) -> None:
        self._spool, self.slot = spool, slot
        self.has_memory = False

    def __del__(self) -> None:
        self._spool.release(self.slot)

    @property
    def logits(self) -> NDArray[np.float32]:
        """[s,s] mask logits."""
        return self._spool.read(self.slot, "logits")

    @property
    def pointer(self) -> NDArray[np.float32]:
        """[C] object pointer."""
        return self._spool.read(self.slot, "pointer")

    @property
    def object_score(self) -> NDArray[np.float32]:
        """[] logit; above 0 the object is present."""
        return self._spool.read(self.slot, "object_score")

    @property
    def memory(self) -> NDArray[np.float32]:
        """[m,h,w]; `has_memory` tells whether there is one."""
        return self._spool.read(self.slot, "memory")

    @property
    def memory_cells(self) -> NDArray[np.int32]:
        """[N], the cells of the memory that are attended to where that is not all."""
        return self._spool.read(self.slot, "memory_cells")

    def remember(self, memory: NDArray[np.float32], cells: NDArray[np.int32] | None = None) -> None:
        """Store the memory [m,h,w] of the frame, and the cells of it that are attended to."""
        self._spool.write(self.slot, "memory", memory)
        if cells is not None:
            self._spool.write(self.slot, "memory_cells", cells)
        self.has_memory = True


def _upper_bits(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """bfloat16 bits of float32 values, rounded to the nearest, halves to the even one."""
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _no_room(error: Exception) -> SinkError:
    return SinkError(
        f"results cannot be stored in {tempfile.gettempdir()}: {error}; set TMPDIR to a folder "
        "with room, and call init_state again if the state was closed"
    )
