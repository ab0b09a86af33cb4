"""Motion-aware memory, after SAMURAI (Yang et al. 2024, arXiv 2411.11922), written from the paper.

A Kalman filter predicts an object's box, which helps to choose among the decoder's masks (section
4.1, motion modeling). Only frames with a trusted mask are remembered (section 4.2, motion-aware
memory selection).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.memory.policies.base import CANDIDATES, MaskCandidates, Outcome
from sam2_edge.runtime.memory.policies.boxes import Box, box_iou, mask_box
from sam2_edge.runtime.memory.policies.kalman import BoxFilter
from sam2_edge.runtime.memory.slots import Keep, KeptFrames
from sam2_edge.runtime.results import MASK_LOGIT


@dataclass(frozen=True, slots=True)
class MotionMemory:
    """Uses motion to choose masks, and remembers trusted frames only. Experimental.

    The defaults are the published settings.

    Attributes:
        weight: Weight of motion in the choice of a mask, 0 to 1.
        stable_frames: Consecutive frames of tracking before motion is used.
        min_iou: Predicted IoU that a frame must exceed to be remembered.
        min_score: Object score (logit) that a frame must exceed.
        min_motion: IoU with the predicted box that a frame must exceed.

    Raises:
        Sam2EdgeError: If a value is out of range.
    """

    name: ClassVar[str] = "motion"

    weight: float = 0.25
    stable_frames: int = 15
    min_iou: float = 0.5
    min_score: float = 0.0
    min_motion: float = 0.5

    def __post_init__(self) -> None:
        for name in ("weight", "min_iou", "min_motion"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise Sam2EdgeError(f"{name} is {value}; give 0 to 1")
        if self.stable_frames < 1:
            raise Sam2EdgeError(f"stable_frames is {self.stable_frames}; give 1 or more")

    def slots(self, trained: int, requested: int | None) -> KeptFrames:
        """Return the latest trusted frames, aged by order (section 4.2)."""
        return KeptFrames(trained if requested is None else requested)

    def follow(self) -> _Motion:
        """Return the policy of a new object."""
        return _Motion(self)


class _Motion:
    """One object's track: its filter, and for how many consecutive frames it has been followed."""

    def __init__(self, settings: MotionMemory) -> None:
        self._settings = settings
        self._filter: BoxFilter | None = None
        self._followed = 0

    def choose(self, candidates: MaskCandidates) -> int:
        """Return the mask with the highest weighted sum of motion and IoU (section 4.1)."""
        if not self._stable:
            return candidates.best
        masks, weight = candidates.fetch() > MASK_LOGIT, self._settings.weight

        def score(index: int) -> float:
            motion = self._motion(mask_box(masks[index]))
            return weight * motion + (1 - weight) * float(candidates.iou[index])

        return max(CANDIDATES, key=score)

    def keep(self, outcome: Outcome) -> Collection[Keep]:
        """Keep a frame if it is trusted or prompted."""
        settings, box = self._settings, mask_box(outcome.mask)
        motion = self._motion(box) if self._stable else 1.0
        sure = outcome.object_score > settings.min_score and outcome.iou > settings.min_iou
        if outcome.from_prompt:  # a prompt starts a new track
            self._filter, self._followed = None, 0
        self._move(box if outcome.from_prompt or sure else None)
        trusted = sure and motion > settings.min_motion
        return (Keep.RECENT,) if outcome.from_prompt or trusted else ()

    @property
    def _stable(self) -> bool:
        return self._followed >= self._settings.stable_frames

    def _motion(self, box: Box | None) -> float:
        """Return the IoU of a box with the predicted one; 0 without a box."""
        if box is None or self._filter is None:
            return 0.0
        return box_iou(box, self._filter.box)

    def _move(self, box: Box | None) -> None:
        """Continue the track with this frame's box; without a box the track ends."""
        if box is None:
            self._filter, self._followed = None, 0
            return
        if self._filter is None:
            self._filter = BoxFilter(box)
        else:
            self._filter.update(box)
        self._filter.advance()
        self._followed += 1
