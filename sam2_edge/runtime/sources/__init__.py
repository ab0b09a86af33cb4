"""Frame sources: video files, folders of images and cameras."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

from sam2_edge.errors import SourceError
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.short_repr import short_repr

DEFAULT_FPS = 25.0
"""Frames per second of a source that declares no frame rate."""


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """One frame of a source.

    Attributes:
        index: Number of the frame in the source.
        name: Stem of the names of its result files.
        picture: [H, W, 3] uint8 BGR.
        unix_s: Capture time of a camera frame, in seconds since 1970; None for files.
        read_s: The same time by `time.monotonic`.
        stream: Name of the stream, where there are several; otherwise None.
    """

    index: int
    name: str
    picture: Frame
    unix_s: float | None = None
    read_s: float = 0.0
    stream: str | None = None

    __repr__ = short_repr


class Source(Protocol):
    """A finite source of frames.

    Attributes:
        frames: Number of frames to expect, by what a video declares; None if unknown.
        limit: Largest number of frames that can come; None for a video without an end of its range.
        start: Number of the first of these frames in the file.
        fps: Frames per second.
    """

    frames: int | None
    limit: int | None
    start: int
    fps: float

    def __iter__(self) -> Generator[SourceFrame, None, None]: ...


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Frames from `start` up to, but excluding, `stop`; None means the end of the source."""

    start: int = 0
    stop: int | None = None

    def within(self, count: int | None, what: str) -> FrameRange:
        """Clip the range to a source of `count` frames; None if the count is unknown.

        Raises:
            SourceError: If no frame is left; the message names the source as `what`.
        """
        if count is None:
            return self
        if self.start >= count:
            raise SourceError(
                f"frame {self.start} is past the end of {what}: it has frames 0 to {count - 1}"
            )
        return FrameRange(self.start, count if self.stop is None else min(self.stop, count))

    @property
    def length(self) -> int | None:
        """Number of frames; None if the range is open-ended."""
        return None if self.stop is None else self.stop - self.start
