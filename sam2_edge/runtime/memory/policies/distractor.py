"""Distractor-aware memory, after DAM4SAM (Videnovic et al., CVPR 2025, arXiv 2411.17576).

Written from the paper. Memory has two parts: recent appearance (there "RAM"), for exact masks, and
anchors ("DRM") that tell the object from what looks like it. A frame becomes an anchor where the
decoder is sure of its mask while another of its masks takes in something beside the object.

In the paper anchors have no temporal encoding. The graph has none without; anchors take that of
prompted frames, age 0, which the model learned for what does not get older.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.memory.policies.base import CANDIDATES, MaskCandidates, Outcome
from sam2_edge.runtime.memory.policies.boxes import box_share
from sam2_edge.runtime.memory.slots import Keep, KeptFrames
from sam2_edge.runtime.results import MASK_LOGIT


@dataclass(frozen=True, slots=True)
class DistractorMemory:
    """Prompted frames, then `anchors` anchor frames, then `recent` frames of recent appearance.

    spacing: frames between two recent memories, but for the newest, which always counts, and at
    least between two anchors. least_iou: predicted IoU that an anchor's mask is above. area_change:
    its area differs by at most this share from the median of the last `area_frames` on which the
    object was present. most_box_share: a mask is another object's, too, where the box around the
    chosen mask is smaller than this share of the box around both (see `box_share`). The defaults
    are those reported of the paper.

    Raises Sam2EdgeError for values that cannot be.
    """

    anchors: int = 3
    recent: int = 3
    spacing: int = 5
    least_iou: float = 0.8
    area_change: float = 0.2
    area_frames: int = 10
    most_box_share: float = 0.7

    def __post_init__(self) -> None:
        for name in ("anchors", "recent", "spacing", "area_frames"):
            value = getattr(self, name)
            if value < 1:
                raise Sam2EdgeError(f"{name} is {value}; give 1 or more")
        for name in ("least_iou", "area_change", "most_box_share"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise Sam2EdgeError(f"{name} is {value}; give 0 to 1")

    @property
    def name(self) -> str:
        """See `MemoryPolicy.name`."""
        return "distractor"

    def slots(self, _trained: int, asked: int | None) -> KeptFrames:
        """See `MemoryPolicy.slots`."""
        if asked is not None:
            raise Sam2EdgeError(
                f"recent_memories is {asked}, but the memory policy distractor divides memory by "
                f"itself ({self.recent} recent frames, {self.anchors} anchors); leave it out, or "
                "give DistractorMemory(recent=..., anchors=...)"
            )
        return KeptFrames(self.recent, self.anchors)

    def follow(self) -> _Anchoring:
        """See `MemoryPolicy.follow`."""
        return _Anchoring(self)


class _Anchoring:
    """Areas of one object's last masks, and how long ago its memory was last added to."""

    def __init__(self, settings: DistractorMemory) -> None:
        self._settings = settings
        self._areas: deque[int] = deque(maxlen=settings.area_frames)
        self._since_anchor = self._since_recent = 0
        self._distracted = False

    def choose(self, offer: MaskCandidates) -> int:
        """The decoder's own choice stands; its other masks tell of distractors."""
        best = offer.best
        waited = self._since_anchor + 1 >= self._settings.spacing
        if waited and offer.iou[best] > self._settings.least_iou:
            masks = offer.fetch() > MASK_LOGIT
            self._distracted = self._steady(masks[best]) and self._disagrees(masks, best)
        return best

    def keep(self, outcome: Outcome) -> Collection[Keep]:
        """Nothing of an absent object; see `DistractorMemory`."""
        distracted, self._distracted = self._distracted, False
        self._since_anchor += 1
        self._since_recent += 1
        area = int(np.count_nonzero(outcome.mask))
        if outcome.from_prompt:  # what the mask was before says nothing of the user's
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

    def _steady(self, mask: NDArray[np.bool_]) -> bool:
        """Whether the area of a mask [s,s] is about that of the last ones."""
        usual = float(np.median(self._areas)) if self._areas else 0.0
        change = abs(int(np.count_nonzero(mask)) - usual)
        return usual > 0 and change <= self._settings.area_change * usual

    def _disagrees(self, masks: NDArray[np.bool_], best: int) -> bool:
        """Whether one of the other masks [4,s,s] takes in something beside the best one."""
        return any(
            box_share(masks[best], masks[index]) < self._settings.most_box_share
            for index in CANDIDATES
            if index != best
        )
