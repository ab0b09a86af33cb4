"""Where frames come from: video files and folders of images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import cv2

from sam2_edge.errors import SourceError
from sam2_edge.runtime.frames import Frame

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
COUNT_TOLERANCE = 2
"""Frames by which a video may fall short of the number it declares: containers without an index
of frames only estimate it from the duration."""

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


def open_source(path: str | Path, frames: FrameRange | None = None) -> Source:
    """Open a video file or a folder of images.

    Raises SourceError when there is nothing to read.
    """
    wanted = frames or FrameRange()
    location = Path(path)
    if location.is_dir():
        return ImageFolder(location, wanted)
    if not location.is_file():
        raise SourceError(f"{location} does not exist; give a video file or a folder of images")
    return VideoFile(location, wanted)


class VideoFile:
    """Frames of a video file that OpenCV can decode."""

    def __init__(self, path: Path, frames: FrameRange) -> None:
        self._path = path
        capture = _open_video(path)
        declared = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        capture.release()
        self._declared = declared if declared > 0 else None
        self._range = frames.within(self._declared, str(path))
        self.frames = self._range.length
        self.start = self._range.start
        self.fps = fps if 0 < fps < 1000 else DEFAULT_FPS

    def __iter__(self) -> Iterator[SourceFrame]:
        """Decode from the start of the file, so that every frame has its exact number.

        Raises SourceError where the video ends before the frames it declares.
        """
        capture = _open_video(self._path)
        try:
            index = 0
            while self._range.stop is None or index < self._range.stop:
                wanted = index >= self._range.start
                ok, picture = capture.read() if wanted else (capture.grab(), None)
                if not ok:
                    self._ended(index)
                    return
                if wanted:
                    yield SourceFrame(index, f"{index:05d}", cast("Frame", picture))
                index += 1
        finally:
            capture.release()

    def _ended(self, index: int) -> None:
        missing = 0 if self._declared is None else self._declared - index
        if missing <= COUNT_TOLERANCE and index > self._range.start:
            return
        declared = "no number of" if self._declared is None else str(self._declared)
        start = self._range.start
        remedy = (
            f"results up to there are kept. Repair it, or give --frames {start}:{index}"
            if index > start
            else f"there is no frame {start}. Repair it, or give --frames that start earlier"
        )
        raise SourceError(
            f"{self._path} ends after {index} frames, but declares {declared} frames: the file is "
            f"truncated or corrupt; {remedy}"
        )


class ImageFolder:
    """Images of a folder, in the order of their names; numbers in names count as numbers."""

    def __init__(self, folder: Path, frames: FrameRange) -> None:
        files = image_files(folder)
        cut = frames.within(len(files), str(folder))
        self._files = files[cut.start : cut.stop]
        self.frames: int | None = len(self._files)
        self.start = cut.start
        self.fps = DEFAULT_FPS

    def __iter__(self) -> Iterator[SourceFrame]:
        """Read the images one by one.

        Raises SourceError at one that cannot be read.
        """
        for index, path in enumerate(self._files, self.start):
            yield SourceFrame(index, path.stem, read_image(path))


def image_files(folder: Path, suffixes: Set[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Images of a folder in the order of their names, numbers in them as numbers.

    suffixes: in lower case; files with others are passed over.

    Raises SourceError when there is none, or two have one name but for the suffix.
    """
    files = [
        p
        for p in folder.iterdir()
        if p.suffix.lower() in suffixes and p.is_file() and not p.name.startswith(".")
    ]
    if not files:
        raise SourceError(
            f"{folder} holds no images; known suffixes: {', '.join(sorted(suffixes))}"
        )
    files.sort(key=_natural_key)
    names: dict[str, Path] = {}
    for path in files:
        if names.setdefault(path.stem, path) is not path:
            raise SourceError(
                f"{names[path.stem]} and {path} have one name; results go by it: rename one"
            )
    return files


def read_image(path: Path) -> Frame:
    """An image file as [H,W,3] uint8 BGR.

    Raises SourceError when it cannot be read or has more than 8 bits.
    """
    if not path.is_file():
        raise SourceError(f"{path} does not exist; give an image file")
    try:
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:  # more pixels than OpenCV decodes
        raise SourceError(f"{path} cannot be decoded: {error.err}; make it smaller") from error
    if picture is None:
        raise SourceError(f"{path} cannot be decoded as an image; remove or repair it")
    if picture.dtype != "uint8":
        raise SourceError(
            f"{path} has {picture.dtype} pixels; convert it to 8 bits, with the window of values "
            "that shows what you want to segment"
        )
    return cast("Frame", picture)


def _open_video(path: Path) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise SourceError(f"{path} cannot be opened as a video; check that it is one")
    return capture


def _natural_key(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """Sorts frame2 before frame10, and names of equal numbers by themselves."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts], path.name
