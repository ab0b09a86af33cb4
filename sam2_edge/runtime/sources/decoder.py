"""Decodes the pictures of one video file with PyAV, in order; knows nothing of frame numbers.

Files come from strangers. FFmpeg reads only the file that Python has opened: other files and
addresses that a playlist or an index names are never opened, and playlists are no format here.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from sam2_edge.errors import SourceError
from sam2_edge.runtime.paths import open_file
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.sources.file_length import is_cut_off

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

FORMATS = (
    "apng,asf,av1,avi,dirac,dnxhd,dv,flv,gif,gxf,h261,h263,h264,hevc,ivf,m4v,matroska,mjpeg,mov,"
    "mp4,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,vc1,webm,wtv,yuv4mpegpipe,"
    "aac,flac,mp3,wav"
)
"""Containers that are read, by FFmpeg's names; the audio files among them get a clear error."""

MAX_PIXELS = 2**27
"""Pixels of the largest picture that is decoded: 16384 x 8192."""

THREADS = 4
"""More decode faster, but each holds another frame."""

_OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}

_TURNS: dict[tuple[int, int, int, int], Callable[[Any], Any]] = {
    # Signs of the display matrix (a, b, c, d): x' = ax + cy, y' = bx + dy.
    (0, 1, -1, 0): lambda picture: cv2.rotate(picture, cv2.ROTATE_90_CLOCKWISE),
    (0, -1, 1, 0): lambda picture: cv2.rotate(picture, cv2.ROTATE_90_COUNTERCLOCKWISE),
    (-1, 0, 0, -1): lambda picture: cv2.rotate(picture, cv2.ROTATE_180),
    (-1, 0, 0, 1): lambda picture: cv2.flip(picture, 1),
    (1, 0, 0, -1): lambda picture: cv2.flip(picture, 0),
    (0, 1, 1, 0): cv2.transpose,
    (0, -1, -1, 0): lambda picture: cv2.rotate(cv2.transpose(picture), cv2.ROTATE_180),
}


class _Readable:
    """A file as FFmpeg takes it: failures are error codes.

    PyAV prints exceptions that FFmpeg does not report, such as those of a seek out of the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.tell = file.read, file.tell
        self._seek = file.seek

    def seek(self, offset: int, whence: int) -> int:
        try:
            return self._seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -errno.EINVAL


class VideoDecoder:
    """An open video file and its video stream: the one marked as default, otherwise the first.

    Attributes:
        fps: Frames per second on average; None if the file does not declare it.
        declared: Number of frames that the file declares, exactly or by its duration; it may be
            wrong. None if it declares neither.
        damage: Proof that pictures are missing or wrong, found so far; None if there is none.

    Raises:
        SourceError: If it cannot be opened or has no video.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reformatter, self._threads = VideoReformatter(), THREADS
        self._file = open_file(path)
        self.damage: str | None = None
        self._sound = False  # whether a picture without errors has come
        try:
            self._open()
        except BaseException:
            self._file.close()
            raise
        stream = self._stream
        rates = (stream.average_rate, stream.guessed_rate)
        self.fps = next((float(r) for r in rates if r is not None and 0 < r < 1000), None)
        self.declared = stream.frames or self._frames_by_duration() or None

    def _open(self) -> None:
        self._file.seek(0)
        try:
            self._container = cast(
                "InputContainer",
                # As `options`, PyAV 17 would crash on formats that announce no streams.
                av.open(
                    _Readable(self._file), container_options=_OPTIONS, metadata_errors="replace"
                ),
            )
        except (av.FFmpegError, OSError, ValueError) as error:  # OSError: a seek out of the file
            reason = "truncated: its index is missing" if is_cut_off(self._file) else "no video"
            raise SourceError(
                f"{self._path} cannot be opened as a video: it is {reason}, or in a format that is "
                "not read; check it, or convert it to .mp4"
            ) from error
        try:
            self._stream = _video_stream(self._container, self._path)
            self._stream.thread_type = "AUTO" if self._threads > 1 else "SLICE"
            self._stream.codec_context.thread_count = self._threads
            self._stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        except BaseException:
            self._container.close()
            raise

    def _frames_by_duration(self) -> int:
        stream, rate = self._stream, self.fps or 0.0
        if stream.duration is not None and stream.time_base is not None:
            return round(float(stream.duration * stream.time_base) * rate)
        return round((self._container.duration or 0) / av.time_base * rate)

    def packets(self) -> Iterator[av.Packet[Any]]:
        """Read the packets of the stream without decoding them, from here to the end."""
        try:
            for packet in self._container.demux(self._stream):
                if packet.dts is None and packet.size == 0:
                    return  # asks decoders for what they still hold
                yield packet
        except (av.FFmpegError, OSError) as error:
            self.damage = f"reading failed ({error.strerror or error})"

    def shown_packets(self) -> Iterator[av.Packet[Any]]:
        """Read the packets of pictures that are shown: not cut off, and not for decoding only."""
        return (p for p in self.packets() if not p.is_discard and not self._is_cut(p))

    def seek(self, pts: int) -> None:
        """Continue with a packet at or before `pts`, if the container can be searched."""
        with suppress(av.FFmpegError, OSError):
            self._container.seek(pts, stream=self._stream, backward=True, any_frame=False)

    def frames(self) -> Iterator[av.VideoFrame]:
        """Decode the whole file, in the order of display."""
        done = 0
        try:
            for packet in itertools.chain(self.packets(), [None]):
                for frame in self._decode(packet):
                    yield frame
                    done += 1
        except av.FFmpegError:
            # PyAV loses the frames that a threaded decoder gives together with an error. Without
            # threads each packet has its own frames or error.
            self._threads = 1
            self.restart()
            yield from itertools.islice(self.frames_from(self.packets()), done, None)

    def frames_from(self, packets: Iterator[av.Packet[Any]]) -> Iterator[av.VideoFrame]:
        """Decode packets that begin with a key frame, in the order of display.

        What cannot be decoded is left out and noted in `damage`, unless it precedes the first
        picture, as in a recording that began in the middle of a broadcast.
        """
        for packet in itertools.chain(packets, [None]):
            yield from self._decode_if_possible(packet)

    def restart(self) -> None:
        """Open the file again, at its start."""
        self._container.close()
        self._open()

    def _decode_if_possible(self, packet: av.Packet[Any] | None) -> list[av.VideoFrame]:
        try:
            return self._decode(packet)
        except av.FFmpegError:
            if self._sound:
                self.damage = self.damage or "pictures cannot be decoded"
            return []

    def _decode(self, packet: av.Packet[Any] | None) -> list[av.VideoFrame]:
        if packet is not None and self._is_cut(packet):
            self.damage = self.damage or "the end is missing"
            return []
        frames = self._stream.codec_context.decode(packet)
        for frame in frames:
            if frame.is_corrupt and self._sound:
                self.damage = self.damage or "pictures have errors"
            self._sound |= not frame.is_corrupt
        return frames

    def _is_cut(self, packet: av.Packet[Any]) -> bool:
        """Return whether the end of the file cuts a packet off."""
        # Transport streams mark the joints of recordings in the same way.
        return packet.is_corrupt and self._container.format.name != "mpegts"

    def picture(self, frame: av.VideoFrame) -> Frame:
        """Convert a frame to [H, W, 3] uint8 BGR, turned upright.

        Ranges and matrices that the file declares are obeyed; one that declares no matrix has
        BT.601, as in FFmpeg. Transparency is ignored.
        """
        converted = self._reformatter.reformat(frame, format="bgr24")
        picture = np.ascontiguousarray(converted.to_ndarray())
        if converted is frame:  # in BGR already: the decoder may need it for the next one
            picture = picture.copy()
        matrix = frame.side_data.get("DISPLAYMATRIX")
        if matrix is not None:
            a, b, _, c, d = np.frombuffer(cast("bytes", matrix), np.int32)[:5].tolist()
            turn = _TURNS.get((_sign(a), _sign(b), _sign(c), _sign(d)))
            picture = picture if turn is None else turn(picture)
        return cast("Frame", picture)

    def check_end(self) -> None:
        """Note in `damage` if the file is shorter than it declares."""
        if self.damage is None and is_cut_off(self._file):
            self.damage = "the end is missing"

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._file.close()


def _video_stream(container: Any, path: Path) -> VideoStream:
    still = av.stream.Disposition.attached_pic | av.stream.Disposition.still_image
    streams = [s for s in container.streams.video if not s.disposition & still]
    if not streams:
        has = "a cover picture, but " if container.streams.video else ""
        raise SourceError(f"{path} has {has}no video; give a video file")
    default = av.stream.Disposition.default
    stream = next((s for s in streams if s.disposition & default), streams[0])
    if stream.codec_context is None:
        raise SourceError(f"{path} has a codec that is not known; convert it to H.264")
    return cast("VideoStream", stream)


def _sign(number: int) -> int:
    """Return the sign of an entry of a display matrix; small ones are rounding errors of 0."""
    return 0 if abs(number) < 2**12 else int(np.sign(number))
