"""The memory bank: per object, memories and pointers of past frames in bounded buffers.

Objects with equally many memories and pointers share one buffer and go through the graphs as one
batch. Buffers are slots-first: attention does not mind the order of slots and each slot's age is
an input of its own, so a new memory overwrites the oldest in place and the valid slots, a prefix,
are handed over without a copy. Only when objects come, go or are prompted is a buffer laid anew.

Which frames count follows the published predictor (SAM 2 paper, section 4; `sam2_base.py`):
prompted frames at age 0, at most `max_prompted` of them, the closest in time; of the others, the
memories of the last 6 frames and the pointers of the last 15. A prompted frame beyond the cap
counts as an ordinary one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sam2_edge.contract import Geometry
from sam2_edge.runtime.backends.base import Backend, Tensor

DEFAULT_MAX_PROMPTED = 4
"""Prompted frames kept per object. The published model attends to all of them, which no stream
can; 4 keeps at most 10 memories."""


@dataclass(slots=True)
class _Slot:
    """What stands in one slot of a buffer."""

    frame: int
    prompted: bool


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
    held: int = 0
    memory: list[_Slot] = field(default_factory=list)
    pointers: list[_Slot] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MemoryBatch:
    """What memory attention is given for some objects.

    memory: [M,B,m,h,w]. memory_age: [M,B] int32, frames, 0 for prompted ones. pointers: [P,B,C].
    pointer_age: [P,B] float32, frames over (span - 1).
    """

    object_ids: tuple[int, ...]
    memory: Tensor
    memory_age: NDArray[np.int32]
    pointers: Tensor
    pointer_age: NDArray[np.float32]


class MemoryBank:
    """Memories and pointers of every object, bounded whatever the length of the stream.

    Frames are numbered upwards by the caller; each is written at most once per object, and read
    before it is written. max_prompted: prompted frames kept per object, at least 1. recent: last
    frames without a prompt whose memory counts, None for all that the model was trained with.
    max_batch: most objects in a batch, None for any number.
    """

    def __init__(
        self,
        backend: Backend,
        geometry: Geometry,
        *,
        max_prompted: int = DEFAULT_MAX_PROMPTED,
        recent: int | None = None,
        max_batch: int | None = None,
    ) -> None:
        if max_prompted < 1:
            raise ValueError(f"max_prompted is {max_prompted}; give 1 or more")
        self._backend = backend
        self._geometry = geometry
        self._max_prompted = max_prompted
        self._recent = geometry.recent_memories if recent is None else recent
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

    def hold(self, object_id: int) -> None:
        """Let a frame pass without a memory, and without making those there are any older; unknown
        objects are no error.
        """
        if object_id in self._objects:
            self._objects[object_id].held += 1

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
        memory: Tensor,
        pointers: Tensor,
        *,
        prompted: bool,
    ) -> None:
        """Store what a frame left behind.

        memory: [B,m,h,w]; pointers: [B,C]; row b belongs to `object_ids[b]`, None skips a row.
        prompted: these are conditioning frames.
        """
        geometry = self._geometry
        for row, object_id in enumerate(object_ids):
            if object_id is None:
                continue
            entry = self._objects.get(object_id)
            if entry is None:
                entry = self._objects[object_id] = _Object(self._new_group((object_id,)), 0)
            now = frame - entry.held
            slot = self._claim(entry.memory, _Slot(now, prompted), self._recent)
            self._backend.copy(memory[row], entry.group.memory[slot][entry.column])
            slot = self._claim(entry.pointers, _Slot(now, prompted), geometry.recent_pointers)
            self._backend.copy(pointers[row], entry.group.pointers[slot][entry.column])

    def read(self, frame: int, object_ids: Sequence[int], *, span: int) -> list[MemoryBatch]:
        """The batches with which `object_ids`, all known, are tracked on `frame`.

        span: number of pointers by which pointer ages are normalised (16, or the number of frames
        of a shorter clip).
        """
        parts: dict[tuple[int, int], list[int]] = {}
        for object_id in object_ids:
            entry = self._objects[object_id]
            self._settle(entry, frame - entry.held)
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
        now = [(e, frame - e.held) for e in (self._objects[i] for i in ids)]
        memory_age = [[_age(e.memory[m], t) for e, t in now] for m in range(memories)]
        pointer_age = [[t - e.pointers[p].frame for e, t in now] for p in range(pointers)]
        return MemoryBatch(
            object_ids=ids,
            memory=group.memory[:memories],
            memory_age=np.array(memory_age, np.int32),
            pointers=group.pointers[:pointers],
            pointer_age=np.array(pointer_age, np.float32) / np.float32(max(span - 1, 1)),
        )

    def _claim(self, slots: list[_Slot], new: _Slot, recent: int) -> int:
        """The slot for a new frame: one that the next frame does not need, or one more."""
        kept = _needed([*slots, new], new.frame + 1, recent, self._max_prompted)
        for index, slot in enumerate(slots):
            if not any(slot is other for other in kept):
                slots[index] = new
                return index
        slots.append(new)
        return len(slots) - 1

    def _settle(self, entry: _Object, frame: int) -> None:
        """Drop what no longer counts and close the gaps, so that valid slots are a prefix."""
        for slots, buffer, recent in (
            (entry.memory, entry.group.memory, self._recent),
            (entry.pointers, entry.group.pointers, self._geometry.recent_pointers),
        ):
            kept = _needed(slots, frame, recent, self._max_prompted)
            for index in reversed(range(len(slots))):
                if any(slots[index] is other for other in kept):
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
        prompted, objects = self._max_prompted, len(ids)
        memory_shape = (geometry.memory_channels, size, size)
        return _Group(
            object_ids=ids,
            memory=self._backend.empty((prompted + self._recent, objects, *memory_shape)),
            pointers=self._backend.empty(
                (prompted + geometry.recent_pointers, objects, geometry.hidden)
            ),
        )


def closest_frames(frame: int, prompted: Sequence[int], limit: int) -> set[int]:
    """Which prompted frames to keep: the last before `frame`, the first from it on, then the
    nearest, up to `limit` (SAM 2, `select_closest_cond_frames`).
    """
    if len(prompted) <= limit:
        return set(prompted)
    before = max((f for f in prompted if f < frame), default=None)
    after = min((f for f in prompted if f >= frame), default=None)
    chosen = [f for f in (before, after) if f is not None][:limit]
    rest = sorted((f for f in prompted if f not in chosen), key=lambda f: abs(f - frame))
    return {*chosen, *rest[: limit - len(chosen)]}


def _needed(slots: Sequence[_Slot], frame: int, recent: int, max_prompted: int) -> list[_Slot]:
    """The slots that count on `frame`; prompted ones beyond the cap become ordinary."""
    kept = closest_frames(frame, [s.frame for s in slots if s.prompted], max_prompted)
    for slot in slots:
        slot.prompted = slot.prompted and slot.frame in kept
    return [s for s in slots if s.prompted or 1 <= frame - s.frame <= recent]


def _age(slot: _Slot, frame: int) -> int:
    return 0 if slot.prompted else frame - slot.frame
