"""Indexed PNG masks, one file per frame."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sinks.files import (
    bytes_on_disk,
    check_new_folder,
    make_folder,
    write_image,
)
from sam2_edge.runtime.sources import SourceFrame


class MaskFolder:
    """A folder with one indexed PNG per frame as in DAVIS: pixel values are object ids.

    Attributes:
        size_bytes: Disk usage of the masks.

    Raises:
        SinkError: If the folder is not empty and `overwrite` is not set, or cannot be created.
    """

    starts_new_file = False

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        check_new_folder(folder, overwrite=overwrite)
        self.size_bytes = 0
        self._folder = folder

    def write(self, frame: SourceFrame, result: FrameResult) -> None:
        """Write one mask atomically; the first frame creates the folder."""
        make_folder(self._folder)
        path = self._folder / f"{frame.name}.png"
        write_indexed_png(path, result.index_mask())
        self.size_bytes += bytes_on_disk(path)

    def close(self) -> None:
        """Do nothing, since every file is complete."""


def write_indexed_png(path: Path, indexed: NDArray[np.uint8]) -> None:
    """Write object ids, [H, W] uint8, atomically as a palette PNG.

    Raises:
        SinkError: If it cannot be written.
    """
    write_image(path, indexed_image(indexed))


def indexed_image(indexed: NDArray[np.uint8]) -> Image.Image:
    """Return object ids, [H, W] uint8, as an image with the palette of DAVIS."""
    image = Image.fromarray(indexed).convert("P")
    image.putpalette(davis_palette().reshape(-1).tolist())
    return image


@lru_cache(maxsize=1)
def davis_palette() -> NDArray[np.uint8]:
    """Return the color table [256, 3] RGB of DAVIS and Pascal VOC.

    Bits 3k to 3k + 2 of an index become bit 7 - k of red, green and blue.
    """
    colors = np.zeros((256, 3), np.uint8)
    index = np.arange(256)
    for shift in range(8):
        for channel in range(3):
            bit = (index >> (3 * shift + channel)) & 1
            colors[:, channel] |= (bit << (7 - shift)).astype(np.uint8)
    return colors
