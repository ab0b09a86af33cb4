"""Frames to calibrate with: chosen evenly from a source, kept on disk, read one at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam2_edge.bundle.contract import Feeds
from sam2_edge.errors import SourceError
from sam2_edge.runtime.preprocess import model_image
from sam2_edge.runtime.sources import SourceFrame
from sam2_edge.runtime.sources.camera import is_camera, open_camera
from sam2_edge.runtime.sources.video import open_source

MIN_FRAMES = 16
"""With fewer, the largest values of a graph's tensors are not seen."""

DEFAULT_FRAMES = 64

CAMERA_STEP = 15
"""Of a camera every so many-th frame is taken: two in a second at 30 frames per second."""


@dataclass(frozen=True, slots=True)
class CalibrationFrames:
    """Inputs of the image encoder on disk. source: name of the file or folder, or the camera, that
    they are from. numbers: of the frames in it. Iterating gives {"image": [1,S,S,3] uint8}, one by
    one.
    """

    source: str
    numbers: tuple[int, ...]
    folder: Path

    def __iter__(self) -> Iterator[Feeds]:
        for number in self.numbers:
            yield {"image": np.load(self.folder / f"{number}.npy")}


def collect_frames(source: str | Path, folder: Path, *, size: int, count: int) -> CalibrationFrames:
    """At most `count` frames as the image encoder sees them, written to `folder`: of a video or a
    folder of images evenly over its length, of a camera (see `is_camera`) every 15th that comes.
    Frames of one color show nothing and are left out.

    Raises SourceError when fewer than 16 are left.
    """
    if count < MIN_FRAMES:
        raise SourceError(f"{count} calibration frames; give {MIN_FRAMES} or more")
    numbers, blank = [], 0
    for frame in _chosen(str(source), count):
        if np.ptp(frame.picture.reshape(-1, 3), axis=0).max() == 0:
            blank += 1
            continue
        np.save(folder / f"{frame.index}.npy", model_image(frame.picture, size))
        numbers.append(frame.index)
    if len(numbers) < MIN_FRAMES:
        left_out = f" ({blank} more are of one color)" if blank else ""
        raise SourceError(
            f"{source} gives {len(numbers)} frames to calibrate with{left_out}, {MIN_FRAMES} are "
            "needed; give a longer clip of what the camera will see"
        )
    name = str(source) if is_camera(str(source)) else Path(source).name
    return CalibrationFrames(name, tuple(numbers), folder)


def _chosen(source: str, count: int) -> Iterator[SourceFrame]:
    """Every so many-th frame, up to `count`; the first ones where a file does not say how many it
    has.
    """
    if is_camera(source):
        frames: Iterable[SourceFrame] = _of_camera(source)
        step = CAMERA_STEP
    else:
        frames = opened = open_source(source)
        step = max(1, (opened.frames or 0) // count)
    return itertools.islice(frames, 0, count * step, step)


def _of_camera(location: str) -> Iterator[SourceFrame]:
    """Frames until the camera gives none; it is given back when the caller stops."""
    with closing(open_camera(location)) as camera:
        for index in itertools.count():
            picture = camera.read()
            if picture is None:
                return
            yield SourceFrame(index, f"{index:05d}", picture)
