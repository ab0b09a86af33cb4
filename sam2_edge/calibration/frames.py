"""Frames to calibrate with: chosen evenly from a source, kept on disk, read one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam2_edge.contract import Feeds
from sam2_edge.errors import SourceError
from sam2_edge.runtime.frames import model_image
from sam2_edge.runtime.sources import SourceFrame, open_source

LEAST_FRAMES = 16
"""With fewer, the largest values of a graph's tensors are not seen."""

DEFAULT_FRAMES = 64


@dataclass(frozen=True, slots=True)
class CalibrationFrames:
    """Inputs of the image encoder on disk. source: name of the file or folder that they are from.
    numbers: of the frames in it. Iterating gives {"image": [1,S,S,3] uint8}, one by one.
    """

    source: str
    numbers: tuple[int, ...]
    folder: Path

    def __iter__(self) -> Iterator[Feeds]:
        for number in self.numbers:
            yield {"image": np.load(self.folder / f"{number}.npy")}


def collect_frames(source: Path, folder: Path, *, size: int, count: int) -> CalibrationFrames:
    """At most `count` frames of a video or a folder of images, evenly over its length, as the image
    encoder sees them, written to `folder`. Frames of one colour show nothing and are left out.

    Raises SourceError when fewer than 16 are left.
    """
    if count < LEAST_FRAMES:
        raise SourceError(f"{count} calibration frames; give {LEAST_FRAMES} or more")
    numbers, blank = [], 0
    for frame in _evenly(source, count):
        if np.ptp(frame.picture.reshape(-1, 3), axis=0).max() == 0:
            blank += 1
            continue
        np.save(folder / f"{frame.index}.npy", model_image(frame.picture, size))
        numbers.append(frame.index)
    if len(numbers) < LEAST_FRAMES:
        left_out = f" ({blank} more are of one colour)" if blank else ""
        raise SourceError(
            f"{source} gives {len(numbers)} frames to calibrate with{left_out}, {LEAST_FRAMES} are "
            "needed; give a longer clip of what the camera will see"
        )
    return CalibrationFrames(source.name, tuple(numbers), folder)


def _evenly(source: Path, count: int) -> Iterator[SourceFrame]:
    """Every so many-th frame; the first ones where a file does not say how many it has."""
    opened = open_source(source)
    step = max(1, (opened.frames or 0) // count)
    taken = 0
    for position, frame in enumerate(opened):
        if position % step == 0:
            yield frame
            taken += 1
        if taken == count:
            return
