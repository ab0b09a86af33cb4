"""Contents of an object's memory slots, and rules for which of them are used on a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.memory.rows import Row


class Keep(Enum):
    """How the memory of an unprompted frame is kept."""

    RECENT = "recent"
    """Used until newer recent memories replace it."""
    TRANSIENT = "transient"
    """Used until the next memory arrives."""
    ANCHOR = "anchor"
    """Used at age 0, like a conditioning frame."""


@dataclass(slots=True)
class Slot:
    """A remembered frame of an object.

    Attributes:
        frame: Frame number, without the frames on which the object was frozen.
        conditioning: Whether it is a conditioning frame.
        keep: How it is kept, unless `conditioning`.
    """

    frame: int
    conditioning: bool
    keep: Keep = Keep.RECENT


@dataclass(slots=True)
class MemorySlot(Slot):
    """A stored memory.

    Attributes:
        row: Where it is stored.
        cells: [N] int32, the cells of the memory to attend to; None for all.
    """

    row: Row = field(kw_only=True)
    cells: NDArray[np.int32] | None = field(default=None, kw_only=True)


@dataclass(slots=True)
class PointerSlot(Slot):
    """A stored object pointer [C] float32."""

    pointer: NDArray[np.float32] = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class RecentFrames:
    """The published policy: the last `max_slots` frames, aged by their distance in time."""

    max_slots: int

    def ages(self, slots: Sequence[Slot], frame: int) -> list[int | None]:
        """Return the age of each slot on a later frame; None if it is no longer used."""
        return [
            age if 1 <= (age := frame - slot.frame) <= self.max_slots else None for slot in slots
        ]


@dataclass(frozen=True, slots=True)
class KeptFrames:
    """The latest kept memories, however old, and the latest anchors.

    Attributes:
        recent: Number of memories, aged by order: 1 for the newest.
        anchors: Number of anchors, at age 0.
    """

    recent: int
    anchors: int = 0

    @property
    def max_slots(self) -> int:
        """Maximum number of memories in use at once."""
        return self.recent + self.anchors

    def ages(self, slots: Sequence[Slot], _frame: int) -> list[int | None]:
        """Return the age of each slot, by order alone; None if it is no longer used."""
        ages: list[int | None] = [None] * len(slots)
        newest_first = sorted(range(len(slots)), key=lambda index: -slots[index].frame)
        anchors = [index for index in newest_first if slots[index].keep is Keep.ANCHOR]
        for index in anchors[: self.anchors]:
            ages[index] = 0
        others = [index for index in newest_first if slots[index].keep is not Keep.ANCHOR]
        lasting = [i for i in others if i == others[0] or slots[i].keep is Keep.RECENT]
        for age, index in enumerate(lasting[: self.recent], start=1):
            ages[index] = age
        return ages


SlotPolicy = RecentFrames | KeptFrames
"""Which memories of unprompted frames are used on a frame, and at which age."""


def closest_frames(frame: int, conditioning: Sequence[int], limit: int) -> set[int]:
    """Return the conditioning frames to keep, up to `limit` (SAM 2, `select_closest_cond_frames`).

    These are the last one before `frame`, the first one from `frame` on, then the nearest.
    """
    if len(conditioning) <= limit:
        return set(conditioning)
    before = max((f for f in conditioning if f < frame), default=None)
    after = min((f for f in conditioning if f >= frame), default=None)
    chosen = [f for f in (before, after) if f is not None][:limit]
    rest = sorted((f for f in conditioning if f not in chosen), key=lambda f: abs(f - frame))
    return {*chosen, *rest[: limit - len(chosen)]}


def slot_ages(
    slots: Sequence[Slot], frame: int, policy: SlotPolicy, max_cond_frames: int
) -> list[int | None]:
    """Return the age of each slot, 0 for conditioning frames; None if it is not used.

    Conditioning frames beyond `max_cond_frames` become ordinary ones.
    """
    conditioning = [slot.frame for slot in slots if slot.conditioning]
    if len(conditioning) > max_cond_frames:
        kept = closest_frames(frame, conditioning, max_cond_frames)
        for slot in slots:
            slot.conditioning = slot.conditioning and slot.frame in kept
    others = iter(policy.ages([s for s in slots if not s.conditioning], frame))
    return [0 if slot.conditioning else next(others) for slot in slots]
