"""Following objects through a clip while keeping what each frame leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.tracker import VideoTracker


@dataclass(frozen=True, slots=True)
class State:
    """One object on one frame: mask logits [S/4,S/4] float32 and object score."""

    logits: NDArray[np.float32]
    object_score: float

    @property
    def present(self) -> bool:
        """Whether the object is judged to be there."""
        return self.object_score > 0


Remembered = tuple[NDArray[np.float32], NDArray[np.float32]]
"""What is kept of an object's frame: memory [m,h,w] and pointer [C]."""


class TrackerAdapter(Protocol):
    """Follows objects frame by frame."""

    def follow(self, frame: NDArray[np.uint8], prompts: Sequence[Prompt]) -> dict[int, State]:
        """The next frame [H,W,3] BGR: every object on it, by id."""
        ...

    def remembered(self, object_id: int) -> Remembered | None:
        """What is kept of the frame before the one that was followed last; None if nothing is."""
        ...


class TrackerLoop:
    """Our own tracker as a `TrackerAdapter`."""

    def __init__(self, tracker: VideoTracker) -> None:
        self._tracker = tracker

    def follow(self, frame: NDArray[np.uint8], prompts: Sequence[Prompt]) -> dict[int, State]:
        """See `TrackerAdapter.follow`."""
        return {
            found.object_id: State(found.logits, found.object_score)
            for found in self._tracker.track(frame, prompts).objects
        }

    def remembered(self, object_id: int) -> Remembered | None:
        """See `TrackerAdapter.remembered`."""
        return self._tracker.latest_memory(object_id)
