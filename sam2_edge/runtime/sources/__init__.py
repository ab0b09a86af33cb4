"""Where frames come from: video files, folders of images and cameras."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from sam2_edge.errors import SourceError
from sam2_edge.runtime.preprocess import Frame

DEFAULT_FPS = 25.0
"""Frames per second of an overlay video where the source has no rate of its own."""


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """One frame: its number in the source, its name without suffix, the picture, and for a camera
    the time at which it came, in seconds since 1970.
    """

    index: int
    name: str
    picture: Frame
    unix_s: float | None = None


class Source(Protocol):
    """A finite source of frames.

    frames: number of frames that will come, None if the file does not say. start: number of the
    first one in the file. fps: frames per second.
    """

    frames: int | None
    start: int
    fps: float

    def __iter__(self) -> Iterator[SourceFrame]: ...


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Frames `start` up to but without `stop`; None for the end of the source."""

    start: int = 0
    stop: int | None = None

    def within(self, count: int | None, what: str) -> FrameRange:
        """This range cut to a source of `count` frames.

        Raises SourceError when no frame is left.
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
        """Number of frames, None without an end."""
        return None if self.stop is None else self.stop - self.start
