"""Sinks write results. None replaces existing files unless told to."""

from __future__ import annotations

from typing import Protocol

from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sources import SourceFrame


class Sink(Protocol):
    """Takes every frame with its result, and is closed once."""

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Take one frame; raises SinkError when it cannot be written."""
        ...

    def close(self) -> None:
        """Finish; raises SinkError when the end cannot be written."""
        ...
