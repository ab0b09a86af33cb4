"""Overlay videos: the frames with the masks drawn over them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import cv2

from sam2_edge.errors import SinkError
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sinks.files import check_new_file
from sam2_edge.runtime.sinks.overlay import draw
from sam2_edge.runtime.sources import SourceFrame

VIDEO_CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}


MIN_FREE_BYTES = 16 * 2**20
"""An overlay video stops when the disk has less than this left: OpenCV does not report a full one,
and the end of the file must still be written."""


class OverlayVideo:
    """The picture with masks drawn over it, as .mp4, .mkv or .avi."""

    def __init__(self, path: Path, *, fps: float, overwrite: bool = False) -> None:
        codec = VIDEO_CODECS.get(path.suffix.lower())
        if codec is None:
            raise SinkError(f"{path}: unknown suffix; give one of {', '.join(VIDEO_CODECS)}")
        check_new_file(path, overwrite=overwrite)
        self._path = path
        self._fourcc = cv2.VideoWriter.fourcc(*codec)
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Draw and append one frame."""
        height, width = frame.picture.shape[:2]
        if self._writer is None:
            self._size = (width, height)
            self._writer = cv2.VideoWriter(str(self._path), self._fourcc, self._fps, self._size)
            if not self._writer.isOpened():
                raise SinkError(f"{self._path} cannot be opened for writing; check the folder")
        if shutil.disk_usage(self._path.parent).free < MIN_FREE_BYTES:
            raise SinkError(
                f"{self._path}: less than {MIN_FREE_BYTES >> 20} MB are free on the disk; the "
                "video ends here. Free some space or write elsewhere"
            )
        times = self._times(frame)
        if times == 0:
            return
        canvas = draw(frame.picture, result)
        if (width, height) != self._size:
            canvas = cast("Frame", cv2.resize(canvas, self._size))
        for _ in range(times):
            self._writer.write(canvas)

    def _times(self, _frame: SourceFrame) -> int:
        """How many frames of the video show this one."""
        return 1

    @property
    def size_bytes(self) -> int:
        """Size of the file so far."""
        return self._path.stat().st_size if self._path.exists() else 0

    def close(self) -> None:
        """Write the end of the file."""
        if self._writer is not None:
            self._writer.release()


class RealTimeVideo(OverlayVideo):
    """An overlay video of a camera that plays as fast as it happened: frames are repeated or left
    out to fit its rate. A gap in the stream is shortened to a second.
    """

    def __init__(self, path: Path, *, fps: float, overwrite: bool = False) -> None:
        super().__init__(path, fps=fps, overwrite=overwrite)
        self._began_s: float | None = None
        self._shown = 0

    def _times(self, frame: SourceFrame) -> int:
        if frame.unix_s is None:
            return 1
        if self._began_s is None:
            self._began_s = frame.unix_s
        elapsed = (frame.unix_s - self._began_s) * self._fps
        due = int(elapsed + 1e-3) + 1 - self._shown
        most = max(1, round(self._fps))
        if due < -most:  # the clock was set back
            self._began_s = frame.unix_s - self._shown / self._fps
            due = 1
        if due > most:
            self._began_s += (due - most) / self._fps
        due = min(max(due, 0), most)
        self._shown += due
        return due
