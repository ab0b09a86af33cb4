"""Encodes pictures into one video file with PyAV.

Nothing is held back: each picture is encoded when it is written, so memory stays bounded, and a
file whose writer is killed can be read up to the last two seconds.
"""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import cv2
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from sam2_edge.bundle.storage import atomic_file
from sam2_edge.errors import SinkError, reason_of
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.sinks.codecs import CODECS, CONTAINERS, Codec, find_codec
from sam2_edge.runtime.sinks.files import open_output

if TYPE_CHECKING:
    from av.video.stream import VideoStream

KEY_FRAME_S = 2.0
"""Time between key frames: what is lost when a process is killed, and how fine players search."""

_MAX_CLOCK = 65535
"""Largest numerator of a frame rate in MPEG-4 part 2."""

_BT709 = 1

_log = logging.getLogger(__name__)


class VideoEncoder:
    """A video file of pictures of one size.

    Args:
        path: Its suffix is one of `CONTAINERS`.
        fps: Frames per second, above 0.
        size: Width, height, pixels; all codecs but motion JPEG repeat the last column or row of an
            odd side.
        codec: As for `find_codec`.
        index_first: Whether `close` moves the index of an .mp4 to its start, where browsers on a
            slow network want it. This copies the file once.
        overwrite: Whether an existing file is replaced.

    Raises:
        SinkError: If the file cannot be created or the size cannot be encoded.
    """

    def __init__(
        self,
        path: Path,
        *,
        fps: float | Fraction,
        size: tuple[int, int],
        codec: str | None = None,
        index_first: bool = False,
        overwrite: bool = False,
    ) -> None:
        self._path = path
        self._codec = find_codec(path, codec)
        self._index_first = index_first and path.suffix.lower() == ".mp4"
        _check_size(path, self._codec, size)
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
            self._container.add_stream(codec.encoder, rate=self._rate, options=dict(codec.options)),
        )
        stream.width, stream.height = size[0] + self._padding[1], size[1] + self._padding[0]
        stream.pix_fmt = codec.pixels
        context = stream.codec_context
        context.time_base = 1 / self._rate
        context.gop_size = max(1, min(250, round(KEY_FRAME_S * float(self._rate))))
        context.thread_count = 1  # the processor belongs to the model
        if codec.tag is not None and self._path.suffix.lower() == ".mp4":
            context.codec_tag = codec.tag
        if codec.pixels == "yuv420p":
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
        if self._codec.pixels != "yuv420p":
            return self._reformatter.reformat(frame, format=self._codec.pixels)
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
        if self._index_first and not self._failed:
            _move_index(self._path)


def _check_size(path: Path, codec: Codec, size: tuple[int, int]) -> None:
    smallest, largest = codec.sides
    # An odd side becomes even.
    if max(size) > largest or min(size) + min(size) % codec.step < smallest:
        other = CODECS["mjpeg"][0].sides[1]
        remedy = "give another codec"
        if max(size) > largest:
            avi = f", write .avi (up to {other})" if other > largest else ""
            remedy = f"make the source smaller{avi}"
        raise SinkError(
            f"{path}: frames of {size[0]} x {size[1]} cannot be encoded: sides are from {smallest} "
            f"up to {largest} pixels; {remedy}, or write masks"
        )


def _move_index(path: Path) -> None:
    """Move the index of a finished .mp4 to its start; leave the file as it is if this fails."""
    try:
        with atomic_file(path) as partial, path.open("rb") as file, partial.open("wb") as copy:
            if partial == path:
                return  # a device
            # FFmpeg reads what it has written again, under a name that is never interpreted.
            with (
                av.open(file) as source,
                av.open(
                    copy,
                    "w",
                    format="mp4",
                    options={"movflags": "faststart"},
                    io_open=lambda *_: partial.open("rb"),
                ) as target,
            ):
                pictures = source.streams.video[0]
                stream = target.add_stream_from_template(pictures)
                stream.codec_context.codec_tag = pictures.codec_context.codec_tag
                for packet in source.demux(pictures):
                    if packet.size:
                        packet.stream = stream
                        target.mux(packet)
    except (av.FFmpegError, OSError, ValueError) as error:
        _log.info("%s keeps its index at the end: %s", path, _reason(error))


def _reason(error: Exception) -> str:
    return reason_of(error) if isinstance(error, OSError) else str(error)
