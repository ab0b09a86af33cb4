"""Frames to race on, decoded beforehand, and a click for each object."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2

from sam2_edge.errors import SourceError
from sam2_edge.evaluation.bench.latency import LatencyStats
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.sources import FrameRange
from sam2_edge.runtime.sources.video import open_source
from sam2_edge.synthetic import center_click, clip

MAX_OBJECTS = 16

SYNTHETIC_SEED = 1


@dataclass(frozen=True, slots=True)
class BenchClip:
    """path: what the frames were decoded from. prompts: a click on the first frame per object.
    decode: milliseconds per frame.
    """

    path: Path
    pictures: tuple[Frame, ...]
    prompts: tuple[Prompt, ...]
    decode: LatencyStats


def bench_clip(
    source: Path | None, size: int, frames: int, objects: int, stack: ExitStack
) -> BenchClip:
    """The first frames of a video or a folder, clicked evenly over the picture, or of a synthetic
    clip of `size` pixels, written as a video that lasts as long as `stack`.

    Raises SourceError for a source that cannot be read or is too short.
    """
    prompts = None
    if source is None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sam2_edge")))
        source = folder / "clip.mp4"
        prompts = _write_clip(source, size, frames, objects)
    pictures, times = [], []
    start = time.perf_counter()
    for frame in open_source(source, FrameRange(0, frames)):
        times.append(1e3 * (time.perf_counter() - start))
        pictures.append(frame.picture)
        start = time.perf_counter()
    if len(pictures) < frames:
        raise SourceError(
            f"{source} has {len(pictures)} frames, {frames} are asked for; give a longer one or "
            "fewer --frames"
        )
    clicks = prompts or _clicks(pictures[0], objects)
    return BenchClip(source, tuple(pictures), clicks, LatencyStats.of(times))


def _write_clip(path: Path, size: int, frames: int, objects: int) -> tuple[Prompt, ...]:
    """Write a synthetic clip; the clicks on its objects."""
    drawn = clip(
        SYNTHETIC_SEED,
        frames=frames,
        size=size,
        objects=objects,
        split="heldout",
        photographs=False,
    )
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, (size, size))
    for frame in drawn.frames:
        writer.write(frame)
    writer.release()
    ids = range(1, objects + 1)
    return tuple(Prompt(i, points=[center_click(drawn.mask(0, i))]) for i in ids)


def _clicks(picture: Frame, objects: int) -> tuple[Prompt, ...]:
    """Clicks on a grid of 4 x 4."""
    height, width = picture.shape[:2]
    return tuple(
        Prompt(i + 1, points=[((i % 4 + 0.5) * width / 4, (i // 4 + 0.5) * height / 4)])
        for i in range(objects)
    )
