"""Sinks, which write results and never replace existing files unless `overwrite` is set."""

from __future__ import annotations

from typing import Protocol

from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sources import SourceFrame


class Sink(Protocol):
    """Writes every frame's result until it is closed.

    Attributes:
        starts_new_file: Whether a write after an error starts a new file, so that a retry makes
            sense.
    """

    starts_new_file: bool

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Write one frame; raises SinkError if this fails, LostResultError if the next may not."""
        ...

    def close(self) -> None:
        """Finish the output; raises SinkError if this fails."""
        ...
