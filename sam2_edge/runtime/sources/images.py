"""Folders of images in the natural order of their names."""

from __future__ import annotations

import re
from collections.abc import Generator, Set
from pathlib import Path
from typing import cast

import cv2

from sam2_edge.errors import SourceError
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.sources import DEFAULT_FPS, FrameRange, SourceFrame

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class ImageFolder:
    """A `Source` of the images in a folder."""

    def __init__(self, folder: Path, frames: FrameRange) -> None:
        files = image_files(folder)
        chosen = frames.within(len(files), str(folder))
        self._files = files[chosen.start : chosen.stop]
        self.frames: int | None = len(self._files)
        self.start = chosen.start
        self.fps = DEFAULT_FPS

    def __iter__(self) -> Generator[SourceFrame, None, None]:
        """Read the images one by one; raises SourceError if one cannot be read."""
        for index, path in enumerate(self._files, self.start):
            yield SourceFrame(index, path.stem, read_image(path))


def image_files(folder: Path, suffixes: Set[str] = IMAGE_SUFFIXES) -> list[Path]:
    """List the images of a folder, frame2 before frame10.

    Args:
        folder: Folder to list; hidden files are ignored.
        suffixes: Suffixes of image files, in lower case.

    Raises:
        SourceError: If there are no images, or two names differ only in their suffix.
    """
    files = [
        p
        for p in folder.iterdir()
        if p.suffix.lower() in suffixes and p.is_file() and not p.name.startswith(".")
    ]
    if not files:
        raise SourceError(
            f"{folder} contains no images; known suffixes: {', '.join(sorted(suffixes))}"
        )
    files.sort(key=_natural_key)
    names: dict[str, Path] = {}
    for path in files:
        if names.setdefault(path.stem, path) is not path:
            raise SourceError(
                f"{names[path.stem]} and {path} differ only in their suffix, but results are named "
                "without it; rename one"
            )
    return files


def read_image(path: Path) -> Frame:
    """Read an image file as [H, W, 3] uint8 BGR.

    Raises:
        SourceError: If it cannot be read or has more than 8 bits per channel.
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
            f"{path} has {picture.dtype} pixels; convert it to 8 bits, mapping the value range "
            "that shows what you want to segment"
        )
    return cast("Frame", picture)


def _natural_key(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """Sort numbers in names numerically; the full name breaks ties."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts], path.name
