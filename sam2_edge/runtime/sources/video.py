"""Video files, frame by frame."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import cast

import cv2

from sam2_edge.errors import SourceError
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.sources import DEFAULT_FPS, FrameRange, Source, SourceFrame
from sam2_edge.runtime.sources.images import ImageFolder

COUNT_TOLERANCE = 2
"""A video may end this many frames before its declared count, which containers without a frame
index only estimate from the duration."""


def open_source(path: str | Path, frames: FrameRange | None = None) -> Source:
    """Open a video file or a folder of images, whole or a range of its frames.

    Raises:
        SourceError: If there is nothing to read.
    """
    frames = frames or FrameRange()
    location = Path(path)
    if location.is_dir():
        return ImageFolder(location, frames)
    if not location.is_file():
        raise SourceError(f"{location} does not exist; give a video file or a folder of images")
    return VideoFile(location, frames)


class VideoFile:
    """A `Source` of the frames of a video file that OpenCV can decode."""

    def __init__(self, path: Path, frames: FrameRange) -> None:
        self._path = path
        capture = open_video(path)
        declared = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        capture.release()
        self._declared = declared if declared > 0 else None
        self._range = frames.within(self._declared, str(path))
        self.frames = self._range.length
        self.start = self._range.start
        self.fps = fps if 0 < fps < 1000 else DEFAULT_FPS

    def __iter__(self) -> Generator[SourceFrame, None, None]:
        """Decode from the start of the file, since seeking by frame number is inexact.

        Raises:
            SourceError: If the video ends before its declared number of frames.
        """
        capture = open_video(self._path)
        try:
            index = 0
            while self._range.stop is None or index < self._range.stop:
                in_range = index >= self._range.start
                ok, picture = capture.read() if in_range else (capture.grab(), None)
                if not ok:
                    self._check_end(index)
                    return
                if in_range:
                    yield SourceFrame(index, f"{index:05d}", cast("Frame", picture))
                index += 1
        finally:
            capture.release()

    def _check_end(self, index: int) -> None:
        """Raise SourceError unless the video may end before frame `index`."""
        start = self._range.start
        missing = 0 if self._declared is None else self._declared - index
        if missing <= COUNT_TOLERANCE and index > start:
            return
        declared = "no number of" if self._declared is None else str(self._declared)
        remedy = (
            f"results up to there are kept. Repair it, or give --frames {start}:{index}"
            if index > start
            else f"there is no frame {start}. Repair it, or give --frames that start earlier"
        )
        raise SourceError(
            f"{self._path} ends after {index} frames, but declares {declared} frames: the file is "
            f"truncated or corrupt; {remedy}"
        )


def open_video(path: Path) -> cv2.VideoCapture:
    """Open a video file with OpenCV.

    Raises:
        SourceError: If it is not a video.
    """
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise SourceError(f"{path} cannot be opened as a video; check that it is one")
    return capture
