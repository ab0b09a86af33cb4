"""Formats of video files, and the encoders for them in order of preference."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sam2_edge.errors import SinkError

CONTAINERS: dict[str, tuple[str, Mapping[str, str]]] = {
    # Written in fragments, which can be read at any time, and made a common .mp4 at the end.
    ".mp4": ("mp4", {"movflags": "hybrid_fragmented"}),
    ".mkv": ("matroska", {}),
    ".avi": ("avi", {}),
}
"""FFmpeg's names and options of containers, by suffix."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Codec:
    """An encoder of FFmpeg.

    Attributes:
        encoder: Its name.
        sides: Smallest and largest side of a picture, pixels.
        step: Sides are multiples of this.
        pixels: Format of its pictures.
        options: Options of the encoder. They favor speed, so that a camera loop on a small device
            keeps its rate, and hold no picture back, so that a killed process loses little.
        tag: Tag of the format in .mp4 files; None for FFmpeg's own.
    """

    encoder: str
    sides: tuple[int, int]
    step: int = 2
    pixels: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict)
    tag: str | None = None

    @property
    def exists(self) -> bool:
        """Whether this FFmpeg has it."""
        import av  # not when the command line prints its help

        try:
            av.codec.Codec(self.encoder, "w")
        except (av.FFmpegError, ValueError):
            return False
        return True


_FAST = {"preset": "ultrafast", "tune": "zerolatency"}

CODECS: dict[str, tuple[Codec, ...]] = {
    "h264": (
        Codec("libx264", (2, 16384), options=_FAST),
        Codec("libopenh264", (16, 3840), options={"allow_skip_frames": "0"}),
    ),
    "hevc": (
        Codec(
            "libx265",
            (32, 8192),
            options=_FAST | {"x265-params": "log-level=error:pools=1"},
            tag="hvc1",  # Apple's players refuse FFmpeg's own, hev1
        ),
    ),
    "vp9": (
        Codec(
            "libvpx-vp9",
            (2, 16384),
            options={
                "deadline": "realtime",
                "cpu-used": "8",
                "lag-in-frames": "0",
                "crf": "32",
                "b": "0",
            },
        ),
    ),
    "mpeg4": (Codec("mpeg4", (2, 8190), options={"qscale": "3"}),),
    "mjpeg": (Codec("mjpeg", (1, 65500), step=1, pixels="yuvj420p"),),
}
"""Encoders by the name of the format; the first one that this FFmpeg has is used."""

_IN_AVI = ("mjpeg", "mpeg4")


def find_codec(path: Path, name: str | None = None) -> Codec:
    """Return the codec for a file.

    Args:
        path: Its suffix is one of `CONTAINERS`.
        name: A name in `CODECS`; None for H.264, or motion JPEG in .avi. Where no encoder for H.264
            is installed, None is MPEG-4 part 2, with a warning.

    Raises:
        SinkError: If the suffix or the name is unknown, there is no encoder, or the format does not
            go into such a file.
    """
    suffix = path.suffix.lower()
    if suffix not in CONTAINERS:
        raise SinkError(f"{path}: unknown suffix; give one of {', '.join(CONTAINERS)}")
    found = {key: next((c for c in group if c.exists), None) for key, group in CODECS.items()}
    usable = {key: codec for key, codec in found.items() if codec is not None}
    if suffix == ".avi":
        usable = {key: codec for key, codec in usable.items() if key in _IN_AVI}
    if name is None and suffix != ".avi" and "h264" not in usable:
        _log.warning(
            "%s: this FFmpeg has no encoder for H.264, so MPEG-4 part 2 is written, which browsers "
            "do not play; install PyAV's own wheel (`pip install --force-reinstall av`)",
            path,
        )
        name = "mpeg4"
    name = name or ("mjpeg" if suffix == ".avi" else "h264")
    if name not in usable:
        reason = "is unknown"
        if name in CODECS:
            reason = "has no encoder here" if found[name] is None else "is not for this file"
        raise SinkError(f"{path}: codec {name!r} {reason}; {suffix} takes {', '.join(usable)}")
    return usable[name]
