"""What a memory policy is: the seam between the tracker and the rules of each object.

A policy has no state; `follow` gives each object a rule of its own, which lives until the object is
prompted anew, removed or reset.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.memory.slots import Keep, SlotPolicy

CANDIDATES = (1, 2, 3)
"""The masks among which a frame without a prompt has its choice; mask 0 is for several points."""


@dataclass(frozen=True, slots=True)
class MaskCandidates:
    """What the decoder offers for one object that is present, on a frame without a prompt.

    iou: [4] float32, predicted. fetch: gets the logits [4,s,s] float32, which on a GPU costs a copy
    from the device.
    """

    iou: NDArray[np.float32]
    fetch: Callable[[], NDArray[np.float32]]

    @property
    def best(self) -> int:
        """The mask of the highest predicted IoU, which the decoder itself takes."""
        return 1 + int(self.iou[1:].argmax())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of one object when its frame ends.

    mask: [s,s] bool. iou: predicted. object_score: logit, above 0 the object is present. from_prompt: a
    prompt on this frame made the mask.
    """

    mask: NDArray[np.bool_]
    iou: float
    object_score: float
    from_prompt: bool


class ObjectPolicy(Protocol):
    """The rule of one object, frame after frame."""

    def choose(self, offer: MaskCandidates) -> int:
        """The mask to take, one of `CANDIDATES`; asked at most once per frame, before `keep`, and
        only where the object is present. A prompt may yet replace the mask.
        """
        ...

    def keep(self, outcome: Outcome) -> Collection[Keep]:
        """What the frame's memory is kept as, told at the end of every frame, the first, prompted
        one included; empty to leave it out. A memory kept as two things takes two slots. Frames
        that are prompted for the first time are kept whatever this says.
        """
        ...


class MemoryPolicy(Protocol):
    """Makes the rules of a tracker's objects."""

    @property
    def name(self) -> str:
        """Its name in messages."""
        ...

    def slots(self, trained: int, asked: int | None) -> SlotPolicy:
        """Which unprompted memories count, at most `trained` at once.

        trained: as many as the model was trained with. asked: fewer that the user asks for, or
        None.

        Raises Sam2EdgeError where these do not go with the policy.
        """
        ...

    def follow(self) -> ObjectPolicy | None:
        """The rule of a new object; None where the decoder's choice stands and every frame is kept
        as a recent one.
        """
        ...
