"""Calibration frames: chosen evenly from a source, kept on disk, read one at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam2_edge.bundle.contract import Feeds
from sam2_edge.errors import SourceError, printable
from sam2_edge.runtime.preprocess import model_image
from sam2_edge.runtime.sources import SourceFrame
from sam2_edge.runtime.sources.camera import open_camera
from sam2_edge.runtime.sources.frame_access import NumberedFrames
from sam2_edge.runtime.sources.location import SourceKind, locate
from sam2_edge.runtime.sources.video import open_source, video_path

MIN_FRAMES = 16
"""With fewer, the largest values of a graph's tensors do not show."""

DEFAULT_FRAMES = 64

CAMERA_STEP = 15
"""Every 15th frame of a camera is taken: two per second at 30 frames per second."""


@dataclass(frozen=True, slots=True)
class CalibrationFrames:
    """Inputs of the image encoder on disk; iteration yields {"image": [1,S,S,3] uint8}.

    Attributes:
        source: Name of the file or folder, or the camera.
        numbers: Numbers of the frames in it.
    """

    source: str
    numbers: tuple[int, ...]
    folder: Path

    def __iter__(self) -> Iterator[Feeds]:
        for number in self.numbers:
            yield {"image": np.load(self.folder / f"{number}.npy")}


def collect_frames(source: str | Path, folder: Path, *, size: int, count: int) -> CalibrationFrames:
    """Write calibration frames to `folder`, as the image encoder sees them.

    Frames are taken evenly from a video or a folder of images, and every 15th from a camera.
    Frames of one color show nothing and are skipped.

    Args:
        source: A video, a folder of images, or a camera (see `locate`).
        folder: An existing folder.
        size: Side of the model input, pixels.
        count: Largest number of frames.

    Raises:
        SourceError: Fewer than 16 frames, or an unreadable source.
    """
    if count < MIN_FRAMES:
        raise SourceError(f"{count} calibration frames; give {MIN_FRAMES} or more")
    place, numbers, blank = locate(source), [], 0
    for frame in _chosen(source, count):
        if np.ptp(frame.picture.reshape(-1, 3), axis=0).max() == 0:
            blank += 1
            continue
        np.save(folder / f"{frame.index}.npy", model_image(frame.picture, size))
        numbers.append(frame.index)
    if len(numbers) < MIN_FRAMES:
        left_out = f" ({blank} more are of one color)" if blank else ""
        raise SourceError(
            f"{place} gives {len(numbers)} frames to calibrate with{left_out}, {MIN_FRAMES} are "
            "needed; give a longer clip of what the camera will see"
        )
    name = str(place) if place.is_camera else printable(place.path.name)
    return CalibrationFrames(name, tuple(numbers), folder)


def _chosen(source: str | Path, count: int) -> Iterator[SourceFrame]:
    """Up to `count` frames, evenly spaced."""
    place = locate(source)
    if place.is_camera:
        yield from itertools.islice(_of_camera(place.text), 0, count * CAMERA_STEP, CAMERA_STEP)
    elif place.kind is SourceKind.FOLDER:
        folder = open_source(source)
        step = max(1, (folder.frames or 0) // count)
        yield from itertools.islice(folder, 0, count * step, step)
    else:
        with closing(NumberedFrames(video_path(source))) as video:
            step = max(1, len(video) // count)
            for number in range(0, len(video), step)[:count]:
                yield SourceFrame(number, f"{number:05d}", video.read(number))


def _of_camera(location: str) -> Iterator[SourceFrame]:
    """Frames until the camera ends; it is released when the caller stops."""
    with closing(open_camera(location)) as camera:
        for index in itertools.count():
            picture = camera.read()
            if picture is None:
                return
            yield SourceFrame(index, f"{index:05d}", picture)
