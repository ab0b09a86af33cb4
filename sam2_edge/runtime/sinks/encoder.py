"""Encodes pictures into one video file with PyAV.

Nothing is held back: each picture is encoded when it is written, so memory stays bounded, and a
file whose writer is killed can be read up to the last two seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import cv2
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from sam2_edge.errors import SinkError, reason_of
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.sinks.files import open_output

if TYPE_CHECKING:
    from av.video.stream import VideoStream

KEY_FRAME_S = 2.0
"""Time between key frames: what is lost when a process is killed, and how fine players search."""

_MAX_CLOCK = 65535
"""Largest numerator of a frame rate in MPEG-4 part 2."""

_BT709 = 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Codec:
    name: str
    pixels: str
    max_side: int
    step: int
    """Sides are multiples of this."""
    options: Mapping[str, str] = field(default_factory=dict)


_H264 = (
    # The fastest settings, so that a camera loop on a small device keeps its rate.
    _Codec("libx264", "yuv420p", 16384, 2, {"preset": "ultrafast", "tune": "zerolatency"}),
    _Codec("libopenh264", "yuv420p", 3840, 2, {"allow_skip_frames": "0"}),
)
_MPEG4 = _Codec("mpeg4", "yuv420p", 8190, 2, {"qscale": "3"})
_MJPEG = _Codec("mjpeg", "yuvj420p", 65500, 1)

CONTAINERS: dict[str, tuple[str, Mapping[str, str]]] = {
    # Written in fragments, which can be read at any time, and made a common .mp4 at the end.
    ".mp4": ("mp4", {"movflags": "hybrid_fragmented"}),
    ".mkv": ("matroska", {}),
    ".avi": ("avi", {}),
}
"""FFmpeg's names and options of containers, by suffix."""


class VideoEncoder:
    """A video file of pictures of one size: H.264 in .mp4 and .mkv, motion JPEG in .avi.

    Args:
        path: Its suffix is one of `CONTAINERS`.
        fps: Frames per second, above 0.
        size: Width, height, pixels; H.264 repeats the last column or row of an odd side.
        overwrite: Whether an existing file is replaced.

    Raises:
        SinkError: If the file cannot be created or the size cannot be encoded.
    """

    def __init__(
        self, path: Path, *, fps: float, size: tuple[int, int], overwrite: bool = False
    ) -> None:
        self._path = path
        self._codec = _codec(path)
        if max(size) > self._codec.max_side:
            others = "" if self._codec is _MJPEG else f", write .avi (up to {_MJPEG.max_side})"
            raise SinkError(
                f"{path}: frames of {size[0]} x {size[1]} cannot be encoded: sides are up to "
                f"{self._codec.max_side} pixels; make the source smaller{others}, or write masks"
            )
        step = self._codec.step
        self._padding = (-size[1] % step, -size[0] % step)
        rate = Fraction(fps).limit_denominator(min(1001, max(1, int(_MAX_CLOCK / fps))))
        self._rate = rate or Fraction(1, 1001)
        self._reformatter, self._count, self._failed = VideoReformatter(), 0, False
        try:
            self._file = open_output(path, overwrite=overwrite)
        except OSError as error:
            raise SinkError(f"{path} cannot be created: {reason_of(error)}") from error
        container, options = CONTAINERS[path.suffix.lower()]
        self._container = av.open(self._file, "w", format=container, options=dict(options))
        self._stream = self._add_stream(size)

    def _add_stream(self, size: tuple[int, int]) -> VideoStream:
        codec = self._codec
        stream = cast(
            "VideoStream",
            self._container.add_stream(codec.name, rate=self._rate, options=dict(codec.options)),
        )
        stream.width, stream.height = size[0] + self._padding[1], size[1] + self._padding[0]
        stream.pix_fmt = codec.pixels
        context = stream.codec_context
        context.time_base = 1 / self._rate
        context.gop_size = max(1, min(250, round(KEY_FRAME_S * float(self._rate))))
        context.thread_count = 1  # the processor belongs to the model
        if codec is not _MJPEG:
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = ColorRange.MPEG.value
        return stream

    def write(self, picture: Frame, *, repeats: int = 1) -> None:
        """Append a picture, [H, W, 3] uint8 BGR, once or several times.

        Raises:
            SinkError: If this fails; the pictures before it are kept.
        """
        if any(self._padding):
            bottom, right = self._padding
            border = cv2.BORDER_REPLICATE
            picture = cast("Frame", cv2.copyMakeBorder(picture, 0, bottom, 0, right, border))
        try:
            frame = self._converted(picture)
            for _ in range(repeats):
                frame.pts, frame.time_base = self._count, 1 / self._rate
                self._container.mux(self._stream.encode(frame))
                self._count += 1
        except (av.FFmpegError, OSError, ValueError) as error:
            self._failed = True
            raise SinkError(
                f"{self._path} cannot be written after {self._count} frames: {_reason(error)}; "
                "the video ends there"
            ) from error

    def _converted(self, picture: Frame) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        if self._codec is _MJPEG:
            return self._reformatter.reformat(frame, format=_MJPEG.pixels)
        return self._reformatter.reformat(
            frame,
            format=self._codec.pixels,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )

    def close(self) -> None:
        """Write the end of the file.

        Raises:
            SinkError: If this fails, and no write failed before.
        """
        try:
            if self._count and not self._failed:
                self._container.mux(self._stream.encode(None))
            self._container.close()
        except (av.FFmpegError, OSError, ValueError) as error:
            if not self._failed:
                raise SinkError(
                    f"{self._path} cannot be finished: {_reason(error)}; most players still play it"
                ) from error
        finally:
            self._file.close()


def _reason(error: Exception) -> str:
    return reason_of(error) if isinstance(error, OSError) else str(error)


def _codec(path: Path) -> _Codec:
    """Return the codec for a file: that of its suffix, or what this FFmpeg has instead."""
    if path.suffix.lower() == ".avi":
        return _MJPEG
    for codec in _H264:
        if _exists(codec):
            return codec
    _log.warning(
        "%s: this FFmpeg has no encoder for H.264, so MPEG-4 part 2 is written, which browsers do "
        "not play; install PyAV's own wheel (`pip install --force-reinstall av`)",
        path,
    )
    return _MPEG4


def _exists(codec: _Codec) -> bool:
    try:
        av.codec.Codec(codec.name, "w")
    except (av.FFmpegError, ValueError):
        return False
    return True
