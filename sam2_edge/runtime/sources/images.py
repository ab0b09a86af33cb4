"""Folders of images in the natural order of their names."""

from __future__ import annotations

import re
from collections.abc import Generator, Set
from pathlib import Path

from sam2_edge.errors import SourceError
from sam2_edge.runtime.sources import DEFAULT_FPS, FrameRange, SourceFrame
from sam2_edge.runtime.sources.image_file import read_image

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)


class ImageFolder:
    """A `Source` of the images in a folder."""

    def __init__(self, folder: Path, frames: FrameRange) -> None:
        files = image_files(folder)
        chosen = frames.within(len(files), str(folder))
        self._files = files[chosen.start : chosen.stop]
        self.frames: int | None = len(self._files)
        self.limit: int | None = self.frames
        self.start = chosen.start
        self.fps = DEFAULT_FPS

    def __iter__(self) -> Generator[SourceFrame, None, None]:
        """Read the images one by one; raises SourceError if one cannot be read."""
        for index, path in enumerate(self._files, self.start):
            yield SourceFrame(index, path.stem, read_image(path))


def image_files(folder: Path, suffixes: Set[str] = IMAGE_SUFFIXES) -> list[Path]:
    """List the images of a folder, frame2 before frame10.

    Args:
        folder: Folder to list.
        suffixes: Suffixes of image files, in lower case.

    Raises:
        SourceError: If there are no images, or two names differ only in their suffix.
    """
    files = list_images(folder, suffixes)
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


def list_images(folder: Path, suffixes: Set[str]) -> list[Path]:
    """List the files of a folder with one of the suffixes, in any order, without hidden files.

    macOS writes a hidden ._NAME.jpg, which is no image, beside NAME.jpg on foreign disks.
    """
    return [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and path.is_file() and not path.name.startswith(".")
    ]


def _natural_key(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """Sort numbers in names numerically; the full name breaks ties."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts], path.name
