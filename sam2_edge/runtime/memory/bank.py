"""The memory bank: memories and object pointers of past frames, bounded for any length of stream.

Memories stay on the backend's device, in rows of one buffer (`rows.py`); pointers are small and
stay on the host. For every frame memory attention gets the numbers of an object's rows and their
ages. Objects with equal numbers of memories and pointers run as one batch; attention does not
depend on the order of memories.

The frames in use are those of the published predictor (SAM 2 paper, section 4; `sam2_base.py`): up
to `max_cond_frames` conditioning frames at age 0, the closest in time; of the others, the memories
of the last 6 frames and the pointers of the last 15. A conditioning frame beyond the limit counts
as an ordinary one. A `SlotPolicy` may select other memories, but not other pointers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Geometry
from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.backends.base import Backend, Tensor
from sam2_edge.runtime.memory.rows import MemoryRows, Row
from sam2_edge.runtime.memory.saved import SavedMemories
from sam2_edge.runtime.memory.slots import (
    Keep,
    MemorySlot,
    PointerSlot,
    RecentFrames,
    Slot,
    SlotPolicy,
    slot_ages,
)
from sam2_edge.runtime.model import MemoryInputs

DEFAULT_MAX_COND_FRAMES = 4
"""Conditioning frames kept per object; with 6 recent frames this makes up to 10 memories. The
published model attends to all of them, which would be unbounded in a stream."""

AnySlot = TypeVar("AnySlot", bound=Slot)
Number = TypeVar("Number", np.int32, np.float32)


@dataclass(slots=True)
class _Object:
    """What is remembered of an object; `frozen` frames did not age it."""

    frozen: int = 0
    memories: list[MemorySlot] = field(default_factory=list)
    pointers: list[PointerSlot] = field(default_factory=list)


class MemoryBank:
    """Memories and pointers of every object, bounded regardless of the length of the stream.

    Frame numbers must ascend. Each frame is read before it is written, and written at most once per
    object.

    Args:
        backend: Owns the memories.
        geometry: Geometry of the model.
        max_cond_frames: Conditioning frames kept per object, at least 1.
        slot_policy: Selects the other memories; None for the recent frames, as many as the model
            was trained with.
        max_batch: Maximum number of objects per batch; None for no limit.
        max_rows: Maximum number of stored memories of all objects; None for no limit.
    """

    def __init__(
        self,
        backend: Backend,
        geometry: Geometry,
        *,
        max_cond_frames: int = DEFAULT_MAX_COND_FRAMES,
        slot_policy: SlotPolicy | None = None,
        max_batch: int | None = None,
        max_rows: int | None = None,
    ) -> None:
        self._geometry = geometry
        self._max_cond_frames = max_cond_frames
        self._slot_policy = slot_policy or RecentFrames(geometry.recent_memories)
        self._pointer_policy = RecentFrames(geometry.recent_pointers)
        self._max_batch = max_batch
        self._rows = MemoryRows(backend, geometry, max_rows=max_rows)
        self._objects: dict[int, _Object] = {}

    def __contains__(self, object_id: int) -> bool:
        return object_id in self._objects

    def clear(self) -> None:
        """Drop every object."""
        self._objects.clear()
        self._rows.clear()

    def remove(self, object_id: int) -> None:
        """Drop one object, if it is in the bank."""
        self._objects.pop(object_id, None)
        if not self._objects:
            self._rows.clear()

    def save(self, object_id: int) -> SavedMemories | None:
        """Copy an object's entry to the host; None if it is not in the bank."""
        entry = self._objects.get(object_id)
        if entry is None:
            return None
        memories = tuple(
            (replace(slot, row=Row(-1)), self._rows.copy_of(slot.row)) for slot in entry.memories
        )
        return SavedMemories(entry.frozen, memories, tuple(map(replace, entry.pointers)))

    def restore(self, object_id: int, saved: SavedMemories | None) -> None:
        """Replace an object's entry by a saved one; None drops the entry."""
        self._objects.pop(object_id, None)
        if saved is None:
            return
        entry = _Object(saved.frozen, pointers=list(map(replace, saved.pointers)))
        rows = self._rows.restore([memory for _, memory in saved.memories])
        for (slot, _), row in zip(saved.memories, rows, strict=True):
            entry.memories.append(replace(slot, row=row))
        self._objects[object_id] = entry

    def continue_at(self, object_id: int, frame: int, *, after: int) -> None:
        """Let an object's frame `frame` follow its frame `after`, as if nothing were between."""
        self._objects[object_id].frozen += frame - after - 1

    def freeze(self, object_id: int) -> None:
        """Skip a frame for an object, if it is in the bank: its memory does not age."""
        if object_id in self._objects:
            self._objects[object_id].frozen += 1

    def latest(self, object_id: int) -> tuple[Tensor, NDArray[np.float32]] | None:
        """Return the newest memory [m, h, w] and pointer [C] of an object; None if it has none.

        The memory is a view, valid until the next `take_rows`.
        """
        entry = self._objects.get(object_id)
        if entry is None:
            return None
        memory = max(entry.memories, key=lambda slot: slot.frame)
        pointer = max(entry.pointers, key=lambda slot: slot.frame)
        return self._rows.buffer[memory.row.index], pointer.pointer

    def take_rows(self, count: int) -> tuple[list[Row], Tensor]:
        """Reserve rows for the memories of a frame, to be passed to `write` once they are written.

        Returns:
            The rows, and a view of them [count, m, h, w], valid until the next call.
        """
        return self._rows.take(count)

    def restore_rows(self, memories: Sequence[NDArray[Any]]) -> list[Row]:
        """Copy memories [m, h, w] from the host into rows, to be passed to `write`."""
        return self._rows.restore(memories)

    def write(
        self,
        frame: int,
        object_ids: Sequence[int],
        memory: Sequence[Row] | None,
        pointers: NDArray[np.float32],
        *,
        conditioning: bool,
        rows: NDArray[np.bool_] | None = None,
        keep: Sequence[Collection[Keep]] | None = None,
        cells: NDArray[np.int32] | None = None,
    ) -> None:
        """Keep the memories and pointers of a frame.

        Args:
            frame: Number of the frame.
            object_ids: Object of each entry, B in all.
            memory: The row of each memory; None if no memory is kept.
            pointers: [B, C].
            conditioning: Whether this is a conditioning frame of these objects.
            rows: [B], the entries to keep; None for all.
            keep: How to keep each entry's memory, unless `conditioning`; None for recent.
            cells: [B, N], the cells of each memory to attend to; required if the geometry has
                `memory_tokens`.
        """
        for index, object_id in enumerate(object_ids):
            if rows is not None and not rows[index]:
                continue
            entry = self._objects.setdefault(object_id, _Object())
            now = frame - entry.frozen
            for kind in (Keep.RECENT,) if conditioning or keep is None else keep[index]:
                assert memory is not None  # required to keep a memory
                chosen = None if cells is None else cells[index]
                new = MemorySlot(now, conditioning, kind, row=memory[index], cells=chosen)
                self._add(entry.memories, new, self._slot_policy)
            pointer = PointerSlot(now, conditioning, pointer=pointers[index].copy())
            self._add(entry.pointers, pointer, self._pointer_policy)

    def in_batches(self, frame: int, object_ids: Sequence[int]) -> list[int]:
        """Return objects in an order in which those that `read` puts into one batch are adjacent.

        Args:
            frame: Number of the frame.
            object_ids: Objects to track; all must be in the bank.
        """
        by_counts: dict[tuple[int, int], list[int]] = {}
        for object_id in object_ids:
            entry = self._objects[object_id]
            self._ages(entry, frame - entry.frozen)  # drops what is not used any more
            counts = len(entry.memories), len(entry.pointers)
            by_counts.setdefault(counts, []).append(object_id)
        return [object_id for members in by_counts.values() for object_id in members]

    def read(self, frame: int, object_ids: Sequence[int], *, span: int) -> list[MemoryInputs]:
        """Return memory attention's inputs for a frame, in batches of adjacent objects.

        Args:
            frame: Number of the frame.
            object_ids: Objects to track; all must be in the bank; see `in_batches`.
            span: Number of pointers by which pointer ages are normalized: 16, or the number of
                frames in a shorter clip.
        """
        batches: list[list[int]] = []
        latest = None
        ages = {}
        for object_id in object_ids:
            entry = self._objects[object_id]
            ages[object_id] = self._ages(entry, frame - entry.frozen)
            counts = len(entry.memories), len(entry.pointers)
            if counts != latest or len(batches[-1]) == self._max_batch:
                batches.append([])
            latest = counts
            batches[-1].append(object_id)
        return [self._inputs(frame, ids, [ages[i] for i in ids], span) for ids in batches]

    def _inputs(
        self, frame: int, ids: Sequence[int], memory_ages: list[list[int]], span: int
    ) -> MemoryInputs:
        """Return the inputs for objects with equal numbers of memories and pointers."""
        entries = [self._objects[i] for i in ids]
        pointer_age = [[frame - e.frozen - slot.frame for slot in e.pointers] for e in entries]
        cells = None
        if self._geometry.memory_tokens is not None:
            cells = np.array([[s.cells for s in e.memories] for e in entries]).swapaxes(0, 1)
        pointers = np.array([[slot.pointer for slot in e.pointers] for e in entries], np.float32)
        return MemoryInputs(
            memory=self._rows.buffer,
            memory_rows=_by_slot([[s.row.index for s in e.memories] for e in entries], np.int32),
            memory_age=_by_slot(memory_ages, np.int32),
            pointers=pointers.swapaxes(0, 1),
            pointer_age=_by_slot(pointer_age, np.float32) / np.float32(max(span - 1, 1)),
            memory_cells=cells,
        )

    def _add(self, slots: list[AnySlot], new: AnySlot, policy: SlotPolicy) -> None:
        """Add a slot, and drop those that the next frame no longer uses."""
        slots.append(new)
        self._drop_unused(slots, new.frame + 1, policy)
        limit = self._max_cond_frames + policy.max_slots
        if not slots or slots[-1] is not new or len(slots) > limit:
            raise Sam2EdgeError(
                f"a frame's memory was kept as {new.keep}, for which {policy} has no slot"
            )

    def _ages(self, entry: _Object, frame: int) -> list[int]:
        """Drop slots that are not used on a frame or later; return the ages of the memories."""
        self._drop_unused(entry.pointers, frame, self._pointer_policy)
        return self._drop_unused(entry.memories, frame, self._slot_policy)

    def _drop_unused(self, slots: list[AnySlot], frame: int, policy: SlotPolicy) -> list[int]:
        ages = slot_ages(slots, frame, policy, self._max_cond_frames)
        slots[:] = [slot for slot, age in zip(slots, ages, strict=True) if age is not None]
        return [age for age in ages if age is not None]


def _by_slot(rows: list[list[int]], dtype: type[Number]) -> NDArray[Number]:
    """Values by object and slot as an array [slots, objects]."""
    return np.ascontiguousarray(np.array(rows, dtype).T)
