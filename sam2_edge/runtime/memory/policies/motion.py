"""Motion-aware memory, after SAMURAI (Yang et al. 2024, arXiv 2411.11922), from the paper.

A Kalman filter says where the box of an object should be. It has a say in which of the decoder's
masks is taken (section 4.1, motion modeling), and only frames whose mask is trusted are remembered
(section 4.2, motion-aware memory selection).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.memory.policies.base import CANDIDATES, MaskCandidates, Outcome
from sam2_edge.runtime.memory.policies.boxes import Box, box_iou, mask_box
from sam2_edge.runtime.memory.policies.kalman import BoxFilter
from sam2_edge.runtime.memory.slots import Keep, KeptFrames
from sam2_edge.runtime.results import MASK_LOGIT


@dataclass(frozen=True, slots=True)
class MotionMemory:
    """Masks chosen with motion in mind, and only memories of trusted frames.

    weight: share of motion in the choice of a mask, 0 to 1. stable_frames: frames in a row on which
    the object must have been followed before motion counts at all. least_iou, least_score,
    least_motion: a frame is remembered where its predicted IoU, its object score (logit) and the
    IoU of its box with the expected one are above these. The defaults are those reported
    of the published method.

    Raises Sam2EdgeError for values that cannot be.
    """

    weight: float = 0.25
    stable_frames: int = 15
    least_iou: float = 0.5
    least_score: float = 0.0
    least_motion: float = 0.5

    def __post_init__(self) -> None:
        for name in ("weight", "least_iou", "least_motion"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise Sam2EdgeError(f"{name} is {value}; give 0 to 1")
        if self.stable_frames < 1:
            raise Sam2EdgeError(f"stable_frames is {self.stable_frames}; give 1 or more")

    @property
    def name(self) -> str:
        """See `MemoryPolicy.name`."""
        return "motion"

    def slots(self, trained: int, asked: int | None) -> KeptFrames:
        """As many trusted frames as the original rule has recent ones. Their ages are by order, as
        what is selected takes the places of the last frames (section 4.2).
        """
        return KeptFrames(trained if asked is None else asked)

    def follow(self) -> _Motion:
        """See `MemoryPolicy.follow`."""
        return _Motion(self)


class _Motion:
    """The track of one object: a filter, while it is followed, and for how many frames it was."""

    def __init__(self, settings: MotionMemory) -> None:
        self._settings = settings
        self._expected: BoxFilter | None = None
        self._followed = 0

    def choose(self, offer: MaskCandidates) -> int:
        """The mask of the highest weighted sum of motion and predicted IoU (section 4.1)."""
        if not self._stable:
            return offer.best
        masks, weight = offer.fetch() > MASK_LOGIT, self._settings.weight

        def score(index: int) -> float:
            motion = self._motion(mask_box(masks[index]))
            return weight * motion + (1 - weight) * float(offer.iou[index])

        return max(CANDIDATES, key=score)

    def keep(self, outcome: Outcome) -> Collection[Keep]:
        """A frame is remembered if it is trusted, or the user's own."""
        settings, box = self._settings, mask_box(outcome.mask)
        motion = self._motion(box) if self._stable else 1.0
        sure = outcome.object_score > settings.least_score and outcome.iou > settings.least_iou
        if outcome.from_prompt:  # the user knows better than the track so far
            self._expected, self._followed = None, 0
        self._move(box if outcome.from_prompt or sure else None)
        trusted = sure and motion > settings.least_motion
        return (Keep.RECENT,) if outcome.from_prompt or trusted else ()

    @property
    def _stable(self) -> bool:
        return self._followed >= self._settings.stable_frames

    def _motion(self, box: Box | None) -> float:
        """IoU of a box with the expected one; 0 for none."""
        if box is None or self._expected is None:
            return 0.0
        return box_iou(box, self._expected.box)

    def _move(self, box: Box | None) -> None:
        """End the frame with a box, or without a sure one, which ends the track."""
        if box is None:
            self._expected, self._followed = None, 0
            return
        if self._expected is None:
            self._expected = BoxFilter(box)
        else:
            self._expected.update(box)
        self._expected.advance()
        self._followed += 1
