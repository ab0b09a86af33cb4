"""Video files in many forms, written with PyAV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def numbered_frames(count: int, size: tuple[int, int] = (48, 64)) -> list[NDArray[np.uint8]]:
    """BGR frames of a noisy background, with a bright bar whose place tells the number."""
    noise = np.random.default_rng(0).integers(0, 90, (*size, 3), np.uint8)
    frames = []
    for number in range(count):
        frame = noise.copy()
        column = number * 7 % size[1]
        frame[:, column : column + 4] = (40, 200, 230)
        frames.append(frame)
    return frames


def encode(
    path: Path,
    frames: Sequence[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    container: Mapping[str, str] | None = None,
    audio_s: float = 0,
    color: tuple[int, int] = (2, 0),
) -> Path:
    """Write BGR frames at 25 per second, or at `times` in units of 1/100 s.

    Args:
        color: The matrix (1 is BT.709, 5 BT.601, 2 unspecified) and the range (1 is limited, 2
            full).
    """
    with av.open(str(path), "w", options=dict(container or {})) as output:
        stream = output.add_stream(codec, rate=25, options=dict(options or {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.colorspace, stream.codec_context.color_range = color
        unit = Fraction(1, 25) if times is None else Fraction(1, 100)
        stream.codec_context.time_base = unit
        sound = output.add_stream("mp2", rate=32000, layout="mono") if audio_s else None
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(
                format=pixels, dst_colorspace=color[0], dst_color_range=color[1]
            )
            frame.pts = number if times is None else times[number]
            frame.time_base = unit
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, int(32000 * audio_s)), np.int16), "s16", "mono"
            )
            silence.sample_rate = 32000
            output.mux(sound.encode(silence))
            output.mux(sound.encode(None))
    return path


def copy_from(path: Path, source: Path, first: int, shift: int = 0) -> Path:
    """Copy the packets from number `first` on without decoding them, as editors cut clips."""
    with av.open(str(source)) as opened, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(opened.streams.video[0])
        for number, packet in enumerate(opened.demux(opened.streams.video[0])):
            if packet.dts is not None and number >= first:
                packet.stream = stream
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                output.mux(packet)
    return path


def cut_bytes(path: Path, part: float) -> Path:
    """The first part of a file's bytes, as a file beside it."""
    data = path.read_bytes()
    cut = path.with_name(f"cut{path.suffix}")
    cut.write_bytes(data[: int(part * len(data)) | 1])  # never at the end of a transport packet
    return cut
