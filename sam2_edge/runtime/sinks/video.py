"""Overlay videos: frames with the masks drawn over them."""

from __future__ import annotations

import shutil
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import cast

import cv2

from sam2_edge.errors import SinkError
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sinks.codecs import find_codec
from sam2_edge.runtime.sinks.encoder import VideoEncoder
from sam2_edge.runtime.sinks.files import check_new_file
from sam2_edge.runtime.sinks.overlay import draw
from sam2_edge.runtime.sources import SourceFrame

MIN_FREE_BYTES = 16 * 2**20
"""An overlay video stops if the disk has less free space: the end of the file must still fit."""


class OverlayVideo:
    """A video of the frames with masks drawn over them, as .mp4, .mkv or .avi.

    Args:
        path: The file to write.
        fps: Frames per second, above 0.
        codec: A name in `CODECS`; None for H.264, or motion JPEG in .avi.
        index_first: As for `VideoEncoder`.
        overwrite: Whether an existing file is replaced.

    Raises:
        SinkError: If the suffix or the codec is unknown, the file exists and `overwrite` is not
            set, or the path cannot be used.
    """

    starts_new_file = False

    def __init__(
        self,
        path: Path,
        *,
        fps: float | Fraction,
        codec: str | None = None,
        index_first: bool = False,
        overwrite: bool = False,
    ) -> None:
        find_codec(path, codec)
        check_new_file(path, overwrite=overwrite)
        self._path, self._fps = path, fps
        self._open = partial(
            VideoEncoder, path, fps=fps, codec=codec, index_first=index_first, overwrite=overwrite
        )
        self._encoder: VideoEncoder | None = None
        self._size = (0, 0)

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Draw and append one frame, at the size of the first."""
        height, width = frame.picture.shape[:2]
        if self._encoder is None:
            self._size = (width, height)
            self._encoder = self._open(size=self._size)
        if shutil.disk_usage(self._path.parent).free < MIN_FREE_BYTES:
            raise SinkError(
                f"{self._path}: less than {MIN_FREE_BYTES >> 20} MiB are free on the disk, so the "
                "video ends here; free some space or write elsewhere"
            )
        repeats = self._repeats(frame)
        if repeats == 0:
            return
        canvas = draw(frame.picture, result)
        if (width, height) != self._size:
            canvas = cast("Frame", cv2.resize(canvas, self._size))
        self._encoder.write(canvas, repeats=repeats)

    def _repeats(self, _frame: SourceFrame) -> int:
        """Return how many times to write this frame."""
        return 1

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""
        return self._path.stat().st_size if self._path.exists() else 0

    def close(self) -> None:
        """Write the end of the file; raises SinkError if this fails."""
        if self._encoder is not None:
            self._encoder.close()


class RealTimeVideo(OverlayVideo):
    """An overlay video of a camera that plays in real time.

    Frames are repeated or skipped to fit the frame rate. Gaps in the stream are shortened to one
    second.
    """

    def __init__(
        self,
        path: Path,
        *,
        fps: float | Fraction,
        codec: str | None = None,
        overwrite: bool = False,
    ) -> None:
        super().__init__(path, fps=fps, codec=codec, overwrite=overwrite)
        self._began_s: float | None = None
        self._shown = 0

    def _repeats(self, frame: SourceFrame) -> int:
        if frame.unix_s is None:
            return 1
        if self._began_s is None:
            self._began_s = frame.unix_s
        elapsed = (frame.unix_s - self._began_s) * self._fps
        due = int(elapsed + 1e-3) + 1 - self._shown
        limit = max(1, round(self._fps))
        if due < -limit:  # the clock was set back
            self._began_s = frame.unix_s - self._shown / self._fps
            due = 1
        if due > limit:
            self._began_s += (due - limit) / self._fps
        due = min(max(due, 0), limit)
        self._shown += due
        return due
