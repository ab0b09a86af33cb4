"""Opens video files and folders of images, and reads videos from their start."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from sam2_edge.errors import SourceError
from sam2_edge.runtime.sources import DEFAULT_FPS, FrameRange, Source, SourceFrame
from sam2_edge.runtime.sources.decoder import VideoDecoder
from sam2_edge.runtime.sources.images import IMAGE_SUFFIXES, ImageFolder
from sam2_edge.runtime.sources.location import SourceKind, locate

SHORT_CLIP_FRAMES = 64
"""Frames up to which a video is counted when it is opened."""


def open_source(path: str | Path, frames: FrameRange | None = None) -> Source:
    """Open a video file or a folder of images, whole or a range of its frames.

    Raises:
        SourceError: If there is nothing to read.
    """
    frames = frames or FrameRange()
    location = locate(path)
    if location.kind is SourceKind.FOLDER:
        return ImageFolder(location.path, frames)
    return VideoFile(video_path(path), frames)


def video_path(source: str | Path) -> Path:
    """Return the path of a video file; raise SourceError if the source is a camera or a stream."""
    location = locate(source)
    if location.is_camera:
        raise SourceError(
            f"{location} is a {location.kind.value}; give a video file or a folder of images, or "
            "track it with `sam2-edge run`"
        )
    return location.path


class VideoFile:
    """A `Source` of the frames of a video file.

    Numbers of frames that the file declares are not trusted: it is read to its end.
    """

    def __init__(self, path: Path, frames: FrameRange) -> None:
        self._path, self._range = path, frames
        with closing(open_decoder(path)) as decoder:
            self.fps = decoder.fps or DEFAULT_FPS
            packets = itertools.islice(decoder.shown_packets(), SHORT_CLIP_FRAMES)
            counted = sum(1 for _ in packets)
            count = decoder.declared if counted == SHORT_CLIP_FRAMES else counted
        self.start = frames.start
        self.limit = frames.length
        remaining = None if count is None or count <= frames.start else count - frames.start
        known = [n for n in (self.limit, remaining) if n is not None]
        self.frames = min(known, default=None)

    def __iter__(self) -> Generator[SourceFrame, None, None]:
        """Decode from the start of the file to the end of the range.

        Raises:
            SourceError: If there is no frame in the range, or the file is damaged; at the end, so
                that the frames before count.
        """
        count = 0
        with closing(open_decoder(self._path)) as decoder:
            for frame in decoder.frames():
                if self._range.stop is not None and count >= self._range.stop:
                    return
                if count >= self.start:
                    yield SourceFrame(count, f"{count:05d}", decoder.picture(frame))
                count += 1
            if self._range.stop is None or count < self._range.stop:
                decoder.check_end()
                self._check(decoder.damage, count)

    def _check(self, damage: str | None, count: int) -> None:
        """Raise SourceError if the file is damaged or ends before the range."""
        start = self.start
        if damage is not None:
            remedy = (
                f"results up to there are kept. Repair it, or give --frames {start}:{count}"
                if count > start
                else f"there is no frame {start}. Repair it, or give --frames that start earlier"
            )
            raise SourceError(
                f"{self._path} ends after {count} frames and is truncated or corrupt: {damage}; "
                f"{remedy}"
            )
        if count == 0:
            raise SourceError(f"{self._path} has no frame that can be decoded; give another video")
        if count <= start:
            raise SourceError(
                f"frame {start} is past the end of {self._path}: it has frames 0 to {count - 1}"
            )


def open_decoder(path: Path) -> VideoDecoder:
    """Open a video file; raise SourceError if it is none, with a hint for images."""
    try:
        return VideoDecoder(path)
    except SourceError as error:
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            raise SourceError(
                f"{path} is an image or an animation that is not read; give a video or a folder of "
                "images, or segment the image with `sam2-edge segment`"
            ) from error
        raise
