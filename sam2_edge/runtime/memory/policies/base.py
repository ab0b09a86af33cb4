"""The memory policy protocols, and the data passed to policies.

A memory policy is stateless. `follow` creates the stateful policy of one object, which lives until
the object is prompted again on another frame, removed or reset.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.memory.slots import Keep, SlotPolicy

CANDIDATES = (1, 2, 3)
"""The decoder's masks to choose from on an unprompted frame; mask 0 is the single-mask output."""


@dataclass(frozen=True, slots=True)
class MaskCandidates:
    """The decoder's masks for an object that is present, on an unprompted frame.

    Attributes:
        iou: [4] float32, predicted.
        fetch: Returns the logits [4, s, s] float32; copies them from the device on a GPU.
    """

    iou: NDArray[np.float32]
    fetch: Callable[[], NDArray[np.float32]]

    @property
    def best(self) -> int:
        """The mask with the highest predicted IoU, the decoder's own choice."""
        return 1 + int(self.iou[1:].argmax())


@dataclass(frozen=True, slots=True)
class Outcome:
    """Final result of an object on a frame.

    Attributes:
        mask: [s, s] bool.
        iou: Predicted, 0 to 1.
        object_score: Logit; the object is present above 0.
        from_prompt: Whether the mask comes from a prompt on this frame.
    """

    mask: NDArray[np.bool_]
    iou: float
    object_score: float
    from_prompt: bool


class ObjectPolicy(Protocol):
    """Makes the decisions for one object, frame by frame."""

    def choose(self, candidates: MaskCandidates) -> int:
        """Return the mask to use, one of `CANDIDATES`.

        Called at most once per frame, before `keep`, and only if the object is present. A prompt
        may still replace the mask.
        """
        ...

    def keep(self, outcome: Outcome) -> Collection[Keep]:
        """Return how to keep the frame's memory; empty to drop it.

        Called at the end of every frame, including the first, prompted one. A memory kept in two
        ways takes two slots. Conditioning frames are kept in any case.
        """
        ...


class MemoryPolicy(Protocol):
    """Creates the policies of a tracker's objects."""

    @property
    def name(self) -> str:
        """Name in messages."""
        ...

    def slots(self, trained: int, requested: int | None) -> SlotPolicy:
        """Return the rule for which memories of unprompted frames are used.

        Args:
            trained: Number of memories that the model was trained with, the maximum.
            requested: Smaller number requested by the user; None for the default.

        Raises:
            Sam2EdgeError: If `requested` conflicts with the policy.
        """
        ...

    def follow(self) -> ObjectPolicy | None:
        """Return the policy of a new object.

        None uses the decoder's own choice and keeps every frame as recent.
        """
        ...
