"""The part of `VideoTracker` that evaluation uses, so that PyTorch's loop can stand in for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.results import FrameResult

MemoryAndPointer = tuple[NDArray[np.float32], NDArray[np.float32]]
"""What one frame of an object leaves in memory: memory [m, h, w] and pointer [C]."""


class Tracker(Protocol):
    """Tracks objects frame by frame: `VideoTracker`, or `pytorch.PyTorchTracker`."""

    def reset(self) -> None:
        """Forget all objects."""
        ...

    def track(self, frame: NDArray[np.uint8], prompts: Sequence[Prompt] = ()) -> FrameResult:
        """Track the next frame, [H, W, 3] BGR."""
        ...

    def latest_memory(self, object_id: int) -> MemoryAndPointer | None:
        """Memory of the object's last frame before the current one; None if there is none."""
        ...
