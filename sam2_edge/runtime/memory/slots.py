"""What stands in the slots of an object's memory, and which of them count on a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray


class Keep(Enum):
    """What an unprompted frame's memory is kept as."""

    RECENT = "recent"
    """One of the last ones."""
    TRANSIENT = "passing"
    """Counts until the next memory comes."""
    ANCHOR = "anchor"
    """Counts without an age, like a prompted frame's."""


@dataclass(slots=True)
class Slot:
    """What stands in one slot of a buffer. frame: number in the object's own time. cells: of a
    memory of which not all is seen, those that are, [N] int32.
    """

    frame: int
    conditioning: bool
    keep: Keep = Keep.RECENT
    cells: NDArray[np.int32] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class RecentFrames:
    """The last `most` frames, at their distances in time: the published rule."""

    most: int

    def ages(self, slots: Sequence[Slot], frame: int) -> list[int | None]:
        """The age of each slot on `frame`, which is later than all of theirs; None where it no
        longer counts.
        """
        return [age if 1 <= (age := frame - slot.frame) <= self.most else None for slot in slots]


@dataclass(frozen=True, slots=True)
class KeptFrames:
    """The last `recent` memories however old, at ages by their order, 1 for the newest, and the
    last `anchors` anchors at age 0.
    """

    recent: int
    anchors: int = 0

    @property
    def most(self) -> int:
        """Most memories that count at once."""
        return self.recent + self.anchors

    def ages(self, slots: Sequence[Slot], _frame: int) -> list[int | None]:
        """See `RecentFrames.ages`; the order of the slots alone counts."""
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
"""Which unprompted memories of an object count on a frame, and at which age."""


def closest_frames(frame: int, conditioning: Sequence[int], limit: int) -> set[int]:
    """Which prompted frames to keep: the last before `frame`, the first from it on, then the
    nearest, up to `limit` (SAM 2, `select_closest_cond_frames`).
    """
    if len(conditioning) <= limit:
        return set(conditioning)
    before = max((f for f in conditioning if f < frame), default=None)
    after = min((f for f in conditioning if f >= frame), default=None)
    chosen = [f for f in (before, after) if f is not None][:limit]
    rest = sorted((f for f in conditioning if f not in chosen), key=lambda f: abs(f - frame))
    return {*chosen, *rest[: limit - len(chosen)]}


def slot_ages(
    slots: Sequence[Slot], frame: int, rule: SlotPolicy, max_cond_frames: int
) -> list[int | None]:
    """The age of each slot on `frame`, 0 for prompted ones, None where it does not count; prompted
    ones beyond the cap become ordinary.
    """
    kept = closest_frames(frame, [s.frame for s in slots if s.conditioning], max_cond_frames)
    for slot in slots:
        slot.conditioning = slot.conditioning and slot.frame in kept
    others = iter(rule.ages([s for s in slots if not s.conditioning], frame))
    return [0 if slot.conditioning else next(others) for slot in slots]
