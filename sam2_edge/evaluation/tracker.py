"""The subset of `VideoTracker` used by evaluation, which PyTorch's loop implements too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.results import FrameResult

MemoryAndPointer = tuple[NDArray[np.float32], NDArray[np.float32]]
"""An object's stored memory [m, h, w] and pointer [C] of one frame."""


class Tracker(Protocol):
    """Tracks objects frame by frame: `VideoTracker`, or `pytorch.PyTorchTracker`."""

    def reset(self) -> None:
        """Drop every object."""
        ...

    def track(self, frame: NDArray[np.uint8], prompts: Sequence[Prompt] = ()) -> FrameResult:
        """Track the next frame, [H, W, 3] BGR."""
        ...

    def latest_memory(self, object_id: int) -> MemoryAndPointer | None:
        """Return the memory and pointer of the object's previous frame; None if there are none."""
        ...
