"""Sinks write results. None replaces existing files unless asked to."""

from __future__ import annotations

from typing import Protocol

from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sources import SourceFrame


class Sink(Protocol):
    """Takes every frame with its result, and is closed once.

    Attributes:
        starts_new_file: Whether it can be written to again after an error, because it starts
            another file then.
    """

    starts_new_file: bool

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Write one frame; raises SinkError when it cannot be written."""
        ...

    def close(self) -> None:
        """Finish the output; raises SinkError when its end cannot be written."""
        ...
