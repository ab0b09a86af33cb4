"""The memory bank: per object, memories and pointers of past frames in bounded buffers.

Objects with equally many memories and pointers share one buffer and go through the graphs as one
batch. Buffers are slots-first: attention does not mind the order of slots and each slot's age is
an input of its own, so a new memory overwrites the oldest in place and the valid slots, a prefix,
are handed over without a copy. Only when objects come, go or are prompted is a buffer laid anew.

Which frames count follows the published predictor (SAM 2 paper, section 4; `sam2_base.py`):
prompted frames at age 0, at most `max_cond_frames` of them, the closest in time; of the others, the
memories of the last 6 frames and the pointers of the last 15. A prompted frame beyond the cap
counts as an ordinary one. A `SlotPolicy` may have other memories count; pointers stay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Geometry
from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.backends.base import Backend, Tensor
from sam2_edge.runtime.memory.slots import Keep, RecentFrames, Slot, SlotPolicy, slot_ages

DEFAULT_MAX_COND_FRAMES = 4
"""Prompted frames kept per object. The published model attends to all of them, which no stream
can; 4 keeps at most 10 memories."""


@dataclass(slots=True)
class _Group:
    """Buffers shared by objects: memory [slots,B,m,h,w] and pointers [slots,B,C]."""

    object_ids: tuple[int, ...]
    memory: Tensor
    pointers: Tensor


@dataclass(slots=True)
class _Object:
    """Where an object's column is and what its slots hold; list index is slot index.

    held: frames that its memory has waited, for which it is no older.
    """

    group: _Group
    column: int
    frozen: int = 0
    memory: list[Slot] = field(default_factory=list)
    pointers: list[Slot] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MemoryBatch:
    """What memory attention is given for some objects.

    memory: [M,B,m,h,w]. memory_age: [M,B] int32, by the rule of slots, 0 for prompted frames.
    pointers: [P,B,C]. pointer_age: [P,B] float32, frames over (span - 1). memory_cells: [M,B,N]
    int32, the cells of each memory that are attended to, None for all.
    """

    object_ids: tuple[int, ...]
    memory: Tensor
    memory_age: NDArray[np.int32]
    pointers: Tensor
    pointer_age: NDArray[np.float32]
    memory_cells: NDArray[np.int32] | None


class MemoryBank:
    """Memories and pointers of every object, bounded whatever the length of the stream.

    Frames are numbered upwards by the caller; each is written at most once per object, and read
    before it is written. max_cond_frames: prompted frames kept per object, at least 1. rule: which
    memories without a prompt count, None for the last frames, as many as the model was trained
    with. max_batch: most objects in a batch, None for any number.
    """

    def __init__(
        self,
        backend: Backend,
        geometry: Geometry,
        *,
        max_cond_frames: int = DEFAULT_MAX_COND_FRAMES,
        rule: SlotPolicy | None = None,
        max_batch: int | None = None,
    ) -> None:
        if max_cond_frames < 1:
            raise ValueError(f"max_cond_frames is {max_cond_frames}; give 1 or more")
        self._backend = backend
        self._geometry = geometry
        self._max_cond_frames = max_cond_frames
        self._rule = RecentFrames(geometry.recent_memories) if rule is None else rule
        self._pointer_rule = RecentFrames(geometry.recent_pointers)
        self._max_batch = max_batch
        self._objects: dict[int, _Object] = {}

    def __contains__(self, object_id: int) -> bool:
        return object_id in self._objects

    def clear(self) -> None:
        """Forget every object."""
        self._objects.clear()

    def remove(self, object_id: int) -> None:
        """Forget one object; unknown ones are no error."""
        self._objects.pop(object_id, None)

    def freeze(self, object_id: int) -> None:
        """Let a frame pass without a memory, and without making those there are any older; unknown
        objects are no error.
        """
        if object_id in self._objects:
            self._objects[object_id].frozen += 1

    def latest(self, object_id: int) -> tuple[Tensor, Tensor] | None:
        """Memory [m,h,w] and pointer [C] of the last frame that an object has left something of;
        views, valid until the next `write`. None for an object without memory.
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
        object_ids: Sequence[int | None],
        memory: Tensor | None,
        pointers: Tensor,
        *,
        conditioning: bool,
        keep: Sequence[Collection[Keep]] | None = None,
        cells: NDArray[np.int32] | None = None,
    ) -> None:
        """Store what a frame left behind.

        memory: [B,m,h,w], None where none is kept; pointers: [B,C]; row b belongs to
        `object_ids[b]`, None skips a row. prompted: these are conditioning frames. keep: by row,
        what the memory of an unprompted frame is kept as; None for recent ones all. cells: [B,N],
        what is attended to of each memory, given exactly if the geometry has `memory_tokens`.
        """
        for row, object_id in enumerate(object_ids):
            if object_id is None:
                continue
            entry = self._objects.get(object_id)
            if entry is None:
                entry = self._objects[object_id] = _Object(self._new_group((object_id,)), 0)
            now, group = frame - entry.frozen, entry.group
            for kind in (Keep.RECENT,) if conditioning or keep is None else keep[row]:
                assert memory is not None  # there is one where it is kept
                seen = None if cells is None else cells[row]
                slot = self._claim(entry.memory, Slot(now, conditioning, kind, seen), self._rule)
                self._backend.copy(memory[row], group.memory[slot][entry.column])
            slot = self._claim(entry.pointers, Slot(now, conditioning), self._pointer_rule)
            self._backend.copy(pointers[row], group.pointers[slot][entry.column])

    def read(self, frame: int, object_ids: Sequence[int], *, span: int) -> list[MemoryBatch]:
        """The batches with which `object_ids`, all known, are tracked on `frame`.

        span: number of pointers by which pointer ages are normalized (16, or the number of frames
        of a shorter clip).
        """
        parts: dict[tuple[int, int], list[int]] = {}
        for object_id in object_ids:
            entry = self._objects[object_id]
            self._settle(entry, frame - entry.frozen)
            parts.setdefault((len(entry.memory), len(entry.pointers)), []).append(object_id)
        return [
            self._batch(frame, ids, *key, span)
            for key, alike in parts.items()
            for ids in self._batches(alike)
        ]

    def _batches(self, ids: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Objects that could share a batch, in batches that are not too large."""
        most = self._max_batch or len(ids)
        for start in range(0, len(ids), most):
            yield tuple(ids[start : start + most])

    def _batch(
        self, frame: int, ids: tuple[int, ...], memories: int, pointers: int, span: int
    ) -> MemoryBatch:
        group = self._group(ids)
        now = [(e, frame - e.frozen) for e in (self._objects[i] for i in ids)]
        memory_age = [self._memory_ages(e, t) for e, t in now]
        pointer_age = [[t - e.pointers[p].frame for e, t in now] for p in range(pointers)]
        return MemoryBatch(
            object_ids=ids,
            memory=group.memory[:memories],
            memory_age=np.array(memory_age, np.int32).T.copy(),
            pointers=group.pointers[:pointers],
            pointer_age=np.array(pointer_age, np.float32) / np.float32(max(span - 1, 1)),
            memory_cells=self._memory_cells([e for e, _ in now], memories),
        )

    def _memory_cells(self, entries: list[_Object], memories: int) -> NDArray[np.int32] | None:
        """The cells [M,B,N] that are attended to of each memory, None for all."""
        if self._geometry.memory_tokens is None:
            return None
        return np.array([[e.memory[slot].cells for e in entries] for slot in range(memories)])

    def _memory_ages(self, entry: _Object, frame: int) -> list[int]:
        """Ages of an object's memories, all of which count on `frame`."""
        ages = slot_ages(entry.memory, frame, self._rule, self._max_cond_frames)
        return [age for age in ages if age is not None]

    def _claim(self, slots: list[Slot], new: Slot, rule: SlotPolicy) -> int:
        """The slot for a new frame: one that the next frame does not need, or one more."""
        ages = slot_ages([*slots, new], new.frame + 1, rule, self._max_cond_frames)
        for index in range(len(slots)):
            if ages[index] is None:
                slots[index] = new
                return index
        if len(slots) == self._max_cond_frames + rule.most:
            raise Sam2EdgeError(
                f"a frame's memory was kept as {new.keep}, for which {rule} has no slot"
            )
        slots.append(new)
        return len(slots) - 1

    def _settle(self, entry: _Object, frame: int) -> None:
        """Drop what no longer counts and close the gaps, so that valid slots are a prefix."""
        for slots, buffer, rule in (
            (entry.memory, entry.group.memory, self._rule),
            (entry.pointers, entry.group.pointers, self._pointer_rule),
        ):
            ages = slot_ages(slots, frame, rule, self._max_cond_frames)
            for index in reversed(range(len(slots))):
                if ages[index] is not None:
                    continue
                last = len(slots) - 1
                if index != last:
                    column = entry.column
                    self._backend.copy(buffer[last][column], buffer[index][column])
                    slots[index] = slots[last]
                slots.pop()

    def _group(self, ids: tuple[int, ...]) -> _Group:
        """The group of exactly these objects, laid anew if they do not share one yet."""
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
        geometry, size = self._geometry, self._geometry.embedding_size
        conditioning, objects = self._max_cond_frames, len(ids)
        memory_shape = (geometry.memory_channels, size, size)
        return _Group(
            object_ids=ids,
            memory=self._backend.empty((conditioning + self._rule.most, objects, *memory_shape)),
            pointers=self._backend.empty(
                (conditioning + self._pointer_rule.most, objects, geometry.hidden)
            ),
        )
