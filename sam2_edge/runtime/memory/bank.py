"""The memory bank: per object, memories and pointers of past frames in bounded buffers.

Objects with equally many memories and pointers share one buffer and go through the graphs as one
batch. Buffers are slots-first: attention does not depend on the order of slots, and each slot's age
is an input of its own. So a new memory overwrites the oldest in place, and the valid slots, a
prefix, are used without a copy. A buffer is reallocated only when objects are added, removed or
prompted.

Which frames count follows the published predictor (SAM 2 paper, section 4; `sam2_base.py`):
conditioning frames at age 0, at most `max_cond_frames` of them, the closest in time; of the others,
the memories of the last 6 frames and the pointers of the last 15. A conditioning frame beyond the
cap counts as an ordinary one. A `SlotPolicy` may select other memories; pointers stay as published.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Geometry
from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.backends.base import Backend, Tensor
from sam2_edge.runtime.memory.slots import Keep, RecentFrames, Slot, SlotPolicy, slot_ages
from sam2_edge.runtime.model import MemoryInputs

DEFAULT_MAX_COND_FRAMES = 4
"""Conditioning frames kept per object. The published model attends to all of them, which no stream
can afford; 4 keeps at most 10 memories."""


@dataclass(slots=True)
class _Group:
    """Buffers shared by objects: memory [slots, B, m, h, w] and pointers [slots, B, C]."""

    object_ids: tuple[int, ...]
    memory: Tensor
    pointers: Tensor


@dataclass(slots=True)
class _Object:
    """Where an object's column is and what its slots hold; a list index is a slot index.

    Attributes:
        frozen: Frames during which its memory did not age.
    """

    group: _Group
    column: int = 0
    frozen: int = 0
    memory: list[Slot] = field(default_factory=list)
    pointers: list[Slot] = field(default_factory=list)


class MemoryBank:
    """Memories and pointers of every object, bounded whatever the length of the stream.

    The caller numbers frames in ascending order. A frame is read before it is written, and written
    at most once per object.

    Args:
        backend: Owns the buffers.
        geometry: Of the model.
        max_cond_frames: Conditioning frames kept per object, at least 1.
        slot_policy: Which other memories count; None for the last frames, as many as the model was
            trained with.
        max_batch: Objects per batch; None for any number.
    """

    def __init__(
        self,
        backend: Backend,
        geometry: Geometry,
        *,
        max_cond_frames: int = DEFAULT_MAX_COND_FRAMES,
        slot_policy: SlotPolicy | None = None,
        max_batch: int | None = None,
    ) -> None:
        self._backend = backend
        self._geometry = geometry
        self._max_cond_frames = max_cond_frames
        self._slot_policy = slot_policy or RecentFrames(geometry.recent_memories)
        self._pointer_policy = RecentFrames(geometry.recent_pointers)
        self._max_batch = max_batch
        self._objects: dict[int, _Object] = {}

    def __contains__(self, object_id: int) -> bool:
        return object_id in self._objects

    def clear(self) -> None:
        """Drop every object."""
        self._objects.clear()

    def remove(self, object_id: int) -> None:
        """Drop one object, if it is known."""
        self._objects.pop(object_id, None)

    def freeze(self, object_id: int) -> None:
        """Skip a frame: an object, if it is known, gets no memory and its memory does not age."""
        if object_id in self._objects:
            self._objects[object_id].frozen += 1

    def latest(self, object_id: int) -> tuple[Tensor, Tensor] | None:
        """Return the newest memory [m, h, w] and pointer [C] of an object; None if it has none.

        Both are views, valid until the next `write`.
        """
        entry = self._objects.get(object_id)
        if entry is None:
            return None
        memory, pointer = (
            buffer[max(range(len(slots)), key=lambda index: slots[index].frame)][entry.column]
            for slots, buffer in (
                (entry.memory, entry.group.memory),
                (entry.pointers, entry.group.pointers),
            )
        )
        return memory, pointer

    def write(
        self,
        frame: int,
        object_ids: Sequence[int],
        memory: Tensor | None,
        pointers: Tensor,
        *,
        conditioning: bool,
        rows: NDArray[np.bool_] | None = None,
        keep: Sequence[Collection[Keep]] | None = None,
        cells: NDArray[np.int32] | None = None,
    ) -> None:
        """Store what a frame leaves behind.

        Args:
            frame: Its number.
            object_ids: Of each row.
            memory: [B, m, h, w]; None if none is kept.
            pointers: [B, C].
            conditioning: Whether these are conditioning frames.
            rows: [B], the rows to store; None for all.
            keep: By row, what the memory of another frame is kept as; None for recent ones.
            cells: [B, N], the cells of each memory to attend to; given exactly if the geometry has
                `memory_tokens`.
        """
        for row, object_id in enumerate(object_ids):
            if rows is not None and not rows[row]:
                continue
            entry = self._objects.get(object_id)
            if entry is None:
                entry = self._objects[object_id] = _Object(self._new_group((object_id,)))
            now, group = frame - entry.frozen, entry.group
            for kind in (Keep.RECENT,) if conditioning or keep is None else keep[row]:
                assert memory is not None  # there is one where it is kept
                kept_cells = None if cells is None else cells[row]
                new = Slot(now, conditioning, kind, kept_cells)
                slot = self._claim(entry.memory, new, self._slot_policy)
                self._backend.copy(memory[row], group.memory[slot][entry.column])
            slot = self._claim(entry.pointers, Slot(now, conditioning), self._pointer_policy)
            self._backend.copy(pointers[row], group.pointers[slot][entry.column])

    def read(
        self, frame: int, object_ids: Sequence[int], *, span: int
    ) -> list[tuple[tuple[int, ...], MemoryInputs]]:
        """Return the batches, by object ids, with which known objects are tracked on a frame.

        Args:
            frame: Its number.
            object_ids: The objects to track.
            span: Number of pointers by which pointer ages are normalized: 16, or the number of
                frames of a shorter clip.
        """
        alike: dict[tuple[int, int], list[int]] = {}
        ages: dict[int, list[int]] = {}
        for object_id in object_ids:
            entry = self._objects[object_id]
            ages[object_id] = self._settle(entry, frame - entry.frozen)
            alike.setdefault((len(entry.memory), len(entry.pointers)), []).append(object_id)
        batches = []
        for members in alike.values():
            size = self._max_batch or len(members)
            for start in range(0, len(members), size):
                ids = tuple(members[start : start + size])
                batches.append((ids, self._inputs(frame, ids, [ages[i] for i in ids], span)))
        return batches

    def _inputs(
        self, frame: int, ids: tuple[int, ...], memory_ages: list[list[int]], span: int
    ) -> MemoryInputs:
        """Return the inputs for settled objects with equally many memories and pointers."""
        group = self._group(ids)
        entries = [self._objects[i] for i in ids]
        memories, pointers = len(entries[0].memory), len(entries[0].pointers)
        pointer_age = [
            [frame - e.frozen - e.pointers[slot].frame for e in entries] for slot in range(pointers)
        ]
        cells = None
        if self._geometry.memory_tokens is not None:
            cells = np.array([[e.memory[slot].cells for e in entries] for slot in range(memories)])
        return MemoryInputs(
            memory=group.memory[:memories],
            memory_age=np.array(memory_ages, np.int32).T.copy(),
            pointers=group.pointers[:pointers],
            pointer_age=np.array(pointer_age, np.float32) / np.float32(max(span - 1, 1)),
            memory_cells=cells,
        )

    def _claim(self, slots: list[Slot], new: Slot, policy: SlotPolicy) -> int:
        """Return the slot for a new frame: one that the next frame does not need, or one more."""
        ages = slot_ages([*slots, new], new.frame + 1, policy, self._max_cond_frames)
        for index in range(len(slots)):
            if ages[index] is None:
                slots[index] = new
                return index
        if len(slots) == self._max_cond_frames + policy.max_slots:
            raise Sam2EdgeError(
                f"a frame's memory was kept as {new.keep}, for which {policy} has no slot"
            )
        slots.append(new)
        return len(slots) - 1

    def _settle(self, entry: _Object, frame: int) -> list[int]:
        """Drop what no longer counts and close the gaps, so that valid slots are a prefix.

        Returns the ages of the memories that count.
        """
        for slots, buffer, policy in (
            (entry.pointers, entry.group.pointers, self._pointer_policy),
            (entry.memory, entry.group.memory, self._slot_policy),
        ):
            ages = slot_ages(slots, frame, policy, self._max_cond_frames)
            for index in reversed(range(len(slots))):
                if ages[index] is not None:
                    continue
                last = len(slots) - 1
                if index != last:
                    self._backend.copy(buffer[last][entry.column], buffer[index][entry.column])
                    slots[index], ages[index] = slots[last], ages[last]
                slots.pop()
                ages.pop()
        return [age for age in ages if age is not None]

    def _group(self, ids: tuple[int, ...]) -> _Group:
        """Return the group of exactly these objects, reallocated if they do not share one yet."""
        current = self._objects[ids[0]].group
        if current.object_ids == ids and all(self._objects[i].group is current for i in ids):
            return current
        group = self._new_group(ids)
        for column, object_id in enumerate(ids):
            entry = self._objects[object_id]
            for old, new, slots in (
                (entry.group.memory, group.memory, entry.memory),
                (entry.group.pointers, group.pointers, entry.pointers),
            ):
                for slot in range(len(slots)):
                    self._backend.copy(old[slot][entry.column], new[slot][column])
            entry.group, entry.column = group, column
        return group

    def _new_group(self, ids: tuple[int, ...]) -> _Group:
        geometry, cond, objects = self._geometry, self._max_cond_frames, len(ids)
        side = geometry.embedding_size
        memory = (cond + self._slot_policy.max_slots, objects, geometry.memory_channels, side, side)
        pointers = (cond + self._pointer_policy.max_slots, objects, geometry.hidden)
        return _Group(ids, self._backend.empty(memory), self._backend.empty(pointers))
