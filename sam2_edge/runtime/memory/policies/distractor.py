"""Distractor-aware memory, after DAM4SAM (Videnovic et al., CVPR 2025, arXiv 2411.17576).

Written from the paper. Memory has two parts: recent appearance ("RAM" in the paper) for accurate
masks, and anchors ("DRM") that separate the object from similar ones. A frame becomes an anchor if
the decoder is confident in its mask while another of its masks includes a distractor.

In the paper, anchors have no temporal encoding. The graph always applies one, so anchors use that
of conditioning frames, age 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.memory.policies.base import CANDIDATES, MaskCandidates, Outcome
from sam2_edge.runtime.memory.policies.boxes import box_share
from sam2_edge.runtime.memory.slots import Keep, KeptFrames
from sam2_edge.runtime.results import MASK_LOGIT


@dataclass(frozen=True, slots=True)
class DistractorMemory:
    """Remembers anchor frames beside frames of recent appearance. Experimental.

    The defaults are the published settings.

    Attributes:
        anchors: Number of anchor frames kept.
        recent: Number of frames of recent appearance kept.
        spacing: Frames between two recent memories (the newest is always used), and minimum number
            of frames between two anchors.
        min_iou: Predicted IoU that an anchor's mask must exceed, 0 to 1.
        area_change: Maximum change of an anchor's area, as a share of the median over the last
            `area_frames` frames on which the object was present.
        area_frames: See `area_change`.
        max_box_share: A mask includes a distractor if the box around the chosen mask is smaller
            than this share of the box around both; see `box_share`.

    Raises:
        Sam2EdgeError: If a value is out of range.
    """

    name: ClassVar[str] = "distractor"

    anchors: int = 3
    recent: int = 3
    spacing: int = 5
    min_iou: float = 0.8
    area_change: float = 0.2
    area_frames: int = 10
    max_box_share: float = 0.7

    def __post_init__(self) -> None:
        for name in ("anchors", "recent", "spacing", "area_frames"):
            value = getattr(self, name)
            if value < 1:
                raise Sam2EdgeError(f"{name} is {value}; give 1 or more")
        for name in ("min_iou", "area_change", "max_box_share"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise Sam2EdgeError(f"{name} is {value}; give 0 to 1")

    def slots(self, _trained: int, requested: int | None) -> KeptFrames:
        """Return the latest recent frames and anchors.

        Raises:
            Sam2EdgeError: If `requested` is given, since the settings determine both numbers.
        """
        if requested is not None:
            raise Sam2EdgeError(
                f"recent_memories is {requested}, but the memory policy distractor sets its own "
                f"numbers ({self.recent} recent frames, {self.anchors} anchors); leave it out, or "
                "give DistractorMemory(recent=..., anchors=...)"
            )
        return KeptFrames(self.recent, self.anchors)

    def follow(self) -> _Anchoring:
        """Return the policy of a new object."""
        return _Anchoring(self)


class _Anchoring:
    """The areas of one object's latest masks, and the ages of its newest kept memories."""

    def __init__(self, settings: DistractorMemory) -> None:
        self._settings = settings
        self._areas: deque[int] = deque(maxlen=settings.area_frames)
        self._since_anchor = self._since_recent = 0
        self._distracted = False

    def choose(self, candidates: MaskCandidates) -> int:
        """Return the decoder's own choice; the other masks reveal distractors."""
        best = candidates.best
        spaced = self._since_anchor + 1 >= self._settings.spacing
        if spaced and candidates.iou[best] > self._settings.min_iou:
            masks = candidates.fetch() > MASK_LOGIT
            self._distracted = self._is_steady(masks[best]) and self._is_ambiguous(masks, best)
        return best

    def keep(self, outcome: Outcome) -> Collection[Keep]:
        """Keep no memory of an absent object; see `DistractorMemory`."""
        distracted, self._distracted = self._distracted, False
        self._since_anchor += 1
        self._since_recent += 1
        area = int(np.count_nonzero(outcome.mask))
        if outcome.from_prompt:  # the user's mask may have any area
            self._areas.clear()
            self._since_anchor = self._since_recent = 0
            distracted = False
        elif not (outcome.object_score > 0 and area > 0):
            return ()
        self._areas.append(area)
        kept = [Keep.TRANSIENT]
        if outcome.from_prompt or self._since_recent >= self._settings.spacing:
            kept, self._since_recent = [Keep.RECENT], 0
        if distracted:
            kept.append(Keep.ANCHOR)
            self._since_anchor = 0
        return kept

    def _is_steady(self, mask: NDArray[np.bool_]) -> bool:
        """Return whether the area of a mask [s, s] is close to the recent ones."""
        median = float(np.median(self._areas)) if self._areas else 0.0
        change = abs(int(np.count_nonzero(mask)) - median)
        return median > 0 and change <= self._settings.area_change * median

    def _is_ambiguous(self, masks: NDArray[np.bool_], best: int) -> bool:
        """Return whether another candidate of the masks [4, s, s] includes a distractor."""
        return any(
            box_share(masks[best], masks[index]) < self._settings.max_box_share
            for index in CANDIDATES
            if index != best
        )
