"""What a memory policy is: the seam between the tracker and what decides for each object.

A policy has no state. `follow` gives each object a policy of its own, which lives until the object
is prompted again on another frame, removed or reset.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.memory.slots import Keep, SlotPolicy

CANDIDATES = (1, 2, 3)
"""The masks to choose from on a frame without a prompt; mask 0 is for several points."""


@dataclass(frozen=True, slots=True)
class MaskCandidates:
    """The decoder's masks of one object that is present, on a frame without a prompt.

    Attributes:
        iou: [4] float32, predicted.
        fetch: Returns the logits [4, s, s] float32; on a GPU this is a copy from the device.
    """

    iou: NDArray[np.float32]
    fetch: Callable[[], NDArray[np.float32]]

    @property
    def best(self) -> int:
        """The mask of the highest predicted IoU, which is the decoder's own choice."""
        return 1 + int(self.iou[1:].argmax())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of one object when its frame ends.

    Attributes:
        mask: [s, s] bool.
        iou: Predicted, 0 to 1.
        object_score: Logit; the object is present above 0.
        from_prompt: Whether a prompt on this frame made the mask.
    """

    mask: NDArray[np.bool_]
    iou: float
    object_score: float
    from_prompt: bool


class ObjectPolicy(Protocol):
    """Decides for one object, frame after frame."""

    def choose(self, candidates: MaskCandidates) -> int:
        """Return the mask to take, one of `CANDIDATES`.

        Called at most once per frame, before `keep`, and only if the object is present. A prompt
        may still replace the mask.
        """
        ...

    def keep(self, outcome: Outcome) -> Collection[Keep]:
        """Return what the frame's memory is kept as; empty to leave it out.

        Called at the end of every frame, including the first, prompted one. A memory kept as two
        things takes two slots. Conditioning frames are kept in any case.
        """
        ...


class MemoryPolicy(Protocol):
    """Makes the policies of a tracker's objects."""

    @property
    def name(self) -> str:
        """Name in messages."""
        ...

    def slots(self, trained: int, requested: int | None) -> SlotPolicy:
        """Return which memories of frames without a prompt count.

        Args:
            trained: As many as the model was trained with; at most this many may count at once.
            requested: Fewer, as the user requests; or None.

        Raises:
            Sam2EdgeError: If these conflict with the policy.
        """
        ...

    def follow(self) -> ObjectPolicy | None:
        """Return the policy of a new object.

        None keeps the decoder's choice and every frame as a recent one.
        """
        ...
