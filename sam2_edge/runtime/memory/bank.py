"""The memory bank: memories and object pointers of past frames, in bounded buffers.

Objects with equal numbers of memories and pointers share buffers and run as one batch. Buffers are
slots-first: attention is independent of the order of slots, since each slot's age is a separate
input. So a new memory overwrites the oldest one in place, and the valid slots are a prefix that is
used without a copy. Buffers are reallocated only when objects are added, removed or prompted.

The frames in use are those of the published predictor (SAM 2 paper, section 4; `sam2_base.py`): up
to `max_cond_frames` conditioning frames at age 0, the closest in time; of the others, the memories
of the last 6 frames and the pointers of the last 15. A conditioning frame beyond the limit counts
as an ordinary one. A `SlotPolicy` may select other memories, but not other pointers.
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
"""Conditioning frames kept per object; with 6 recent frames this makes up to 10 memories. The
published model attends to all of them, which would be unbounded in a stream."""


@dataclass(slots=True)
class _Group:
    """Buffers shared by B objects: memory [slots, B, m, h, w] and pointers [slots, B, C]."""

    object_ids: tuple[int, ...]
    memory: Tensor
    pointers: Tensor


@dataclass(slots=True)
class _Object:
    """An object's column in a group, and the contents of its slots by slot index.

    Attributes:
        frozen: Number of frames on which its memory did not age.
    """

    group: _Group
    column: int = 0
    frozen: int = 0
    memory: list[Slot] = field(default_factory=list)
    pointers: list[Slot] = field(default_factory=list)


class MemoryBank:
    """Memories and pointers of every object, bounded regardless of the length of the stream.

    Frame numbers must ascend. Each frame is read before it is written, and written at most once per
    object.

    Args:
        backend: Owns the buffers.
        geometry: Geometry of the model.
        max_cond_frames: Conditioning frames kept per object, at least 1.
        slot_policy: Selects the other memories; None for the recent frames, as many as the model
            was trained with.
        max_batch: Maximum number of objects per batch; None for no limit.
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
        """Drop one object, if it is in the bank."""
        self._objects.pop(object_id, None)

    def freeze(self, object_id: int) -> None:
        """Skip a frame for an object, if it is in the bank: its memory does not age."""
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
        """Store the memories and pointers of a frame.

        Args:
            frame: Number of the frame.
            object_ids: Object of each row.
            memory: [B, m, h, w]; None if no memory is kept.
            pointers: [B, C].
            conditioning: Whether this is a conditioning frame of these objects.
            rows: [B], the rows to store; None for all.
            keep: How to keep each row's memory, unless `conditioning`; None for recent.
            cells: [B, N], the cells of each memory to attend to; required if the geometry has
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
                assert memory is not None  # required to keep a memory
                new = Slot(now, conditioning, kind, None if cells is None else cells[row])
                slot = self._claim(entry.memory, new, self._slot_policy)
                self._backend.copy(memory[row], group.memory[slot][entry.column])
            slot = self._claim(entry.pointers, Slot(now, conditioning), self._pointer_policy)
            self._backend.copy(pointers[row], group.pointers[slot][entry.column])

    def read(
        self, frame: int, object_ids: Sequence[int], *, span: int
    ) -> list[tuple[tuple[int, ...], MemoryInputs]]:
        """Return memory attention's inputs for a frame, in batches with their object ids.

        Args:
            frame: Number of the frame.
            object_ids: Objects to track; all must be in the bank.
            span: Number of pointers by which pointer ages are normalized: 16, or the number of
                frames in a shorter clip.
        """
        by_counts: dict[tuple[int, int], list[int]] = {}
        ages: dict[int, list[int]] = {}
        for object_id in object_ids:
            entry = self._objects[object_id]
            ages[object_id] = self._settle(entry, frame - entry.frozen)
            by_counts.setdefault((len(entry.memory), len(entry.pointers)), []).append(object_id)
        batches = []
        for members in by_counts.values():
            size = self._max_batch or len(members)
            for start in range(0, len(members), size):
                ids = tuple(members[start : start + size])
                batches.append((ids, self._inputs(frame, ids, [ages[i] for i in ids], span)))
        return batches

    def _inputs(
        self, frame: int, ids: tuple[int, ...], memory_ages: list[list[int]], span: int
    ) -> MemoryInputs:
        """Return the inputs for settled objects with equal numbers of memories and pointers."""
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
        """Return the slot for a new frame: one that the next frame no longer uses, or a new one."""
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
        """Drop unused slots and fill the gaps, so that valid slots form a prefix.

        Returns:
            The ages of the memories.
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
        """Return the group of exactly these objects, reallocated if they do not share it yet."""
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
