"""Results to write, and a sink that records them."""

from __future__ import annotations

import numpy as np

from sam2_edge import FrameResult, ObjectResult, SinkError
from sam2_edge.runtime.sources import SourceFrame


def tracked_frame(
    index: int, *, size: tuple[int, int] = (48, 64), unix_s: float | None = None
) -> tuple[SourceFrame, FrameResult]:
    """A gray frame with object 1, a cup, on its left half and an absent object 2."""
    logits = np.full((16, 16), -5, np.float32)
    logits[:, :8] = 5
    found = ObjectResult(1, logits, 0.75, 2.0, size)
    gone = ObjectResult(2, np.full((16, 16), -1024, np.float32), 0.5, -1.0, size)
    frame = SourceFrame(index, f"{index:05d}", np.full((*size, 3), 120, np.uint8), unix_s)
    return frame, FrameResult(index, (found, gone), size, 4.0, {1: "cup"})


class MemorySink:
    """Keeps the numbers of the frames written to it, and fails on some."""

    starts_new_file = False

    def __init__(self, *, fails_on: range = range(0), error: Exception | None = None) -> None:
        self.frames: list[int] = []
        self.closed = 0
        self._fails_on = fails_on
        self._error = error or SinkError("the disk is full")

    def write(self, frame: SourceFrame, result: FrameResult) -> None:  # noqa: ARG002
        if frame.index in self._fails_on:
            raise self._error
        self.frames.append(frame.index)

    def close(self) -> None:
        self.closed += 1
