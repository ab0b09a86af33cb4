"""Clips with prompts for verification and benchmarks: recorded or synthetic."""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam2_edge.bundle.temporary import scratch_folder
from sam2_edge.errors import SourceError
from sam2_edge.evaluation.synthetic import first_prompts
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.sinks.encoder import VideoEncoder
from sam2_edge.runtime.sources import FrameRange
from sam2_edge.runtime.sources.video import open_source
from sam2_edge.synthetic import center_click, clip

VERIFY_SEED = 116
"""A held-out clip in which one of two objects disappears for five frames and returns."""

MAX_VERIFY_FRAMES = 500
"""Limit on verified frames: all are kept in memory, with PyTorch's results for each."""

BENCH_SEED = 1


@dataclass(frozen=True, slots=True)
class PromptedClip:
    """Consecutive frames with their numbers in the source, and prompts for the first one."""

    name: str
    numbers: tuple[int, ...]
    pictures: tuple[Frame, ...]
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True, slots=True)
class BenchClip:
    """The first frames of a video, a click per object, and the decoding time of each frame."""

    path: Path
    pictures: tuple[Frame, ...]
    prompts: tuple[Prompt, ...]
    decode_ms: tuple[float, ...]


def verify_clip(source: Path | None, chosen: FrameRange, image_size: int) -> PromptedClip:
    """Read or generate a clip with prompts that run every graph: a click and a mask.

    Args:
        source: Video or folder of images, prompted in its center; None for a synthetic clip.
        chosen: Range of frames to read.
        image_size: Side of the synthetic clip in pixels.

    Raises:
        SourceError: If the source cannot be read, or there are fewer than two frames or more than
            `MAX_VERIFY_FRAMES`.
    """
    prompted = _synthetic(chosen, image_size) if source is None else _recorded(source, chosen)
    if len(prompted.numbers) < 2:
        raise SourceError(
            f"{prompted.name} has {len(prompted.numbers)} frame in this range; give two or more, "
            "since memory is used from the second frame on"
        )
    return prompted


def _recorded(source: Path, chosen: FrameRange) -> PromptedClip:
    frames = list(itertools.islice(open_source(source, chosen), MAX_VERIFY_FRAMES + 1))
    if len(frames) > MAX_VERIFY_FRAMES:
        raise SourceError(
            f"{source} has more than {MAX_VERIFY_FRAMES} frames; give a range such as 0:100"
        )
    height, width = frames[0].picture.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height - height // 4, width // 4 : width - width // 4] = 1
    return PromptedClip(
        name=source.name,
        numbers=tuple(frame.index for frame in frames),
        pictures=tuple(frame.picture for frame in frames),
        prompts=(Prompt(1, points=[(width // 2, height // 2)]), Prompt(2, mask=mask)),
    )


def _synthetic(chosen: FrameRange, size: int) -> PromptedClip:
    if chosen.stop is None or chosen.stop - chosen.start > MAX_VERIFY_FRAMES:
        raise SourceError(
            f"a synthetic clip is endless; give a range of at most {MAX_VERIFY_FRAMES} frames, "
            "such as 0:32"
        )
    # Photographs would need scikit-image.
    drawn = clip(VERIFY_SEED, frames=chosen.stop, size=size, split="heldout", photographs=False)
    first, second = (drawn.mask(chosen.start, object_id) for object_id in (1, 2))
    if not (first.any() and second.any()):
        raise SourceError(
            f"an object is out of sight on frame {chosen.start} of the synthetic clip and cannot "
            "be prompted; start at a different frame, such as 0"
        )
    numbers = tuple(range(chosen.start, chosen.stop))
    return PromptedClip(
        name="a synthetic clip",
        numbers=numbers,
        pictures=tuple(drawn.frames[number] for number in numbers),
        prompts=(Prompt(1, points=[center_click(first)]), Prompt(2, mask=second.astype(np.uint8))),
    )


def bench_clip(
    source: Path | None, size: int, frames: int, objects: int, stack: ExitStack
) -> BenchClip:
    """Decode the first frames of a source and add a click per object.

    Args:
        source: Video or folder of images, clicked on a grid; None for a synthetic clip, written
            as a video that is deleted when `stack` closes.
        size: Side of the synthetic clip in pixels.
        frames: Number of frames.
        objects: Number of objects, at most `MAX_BENCH_OBJECTS`.
        stack: Owns the temporary video.

    Raises:
        SourceError: If the source cannot be read or is too short.
    """
    prompts = None
    if source is None:
        folder = stack.enter_context(scratch_folder())
        source = folder / "clip.mp4"
        prompts = _write_video(source, size, frames, objects)
    pictures, times = [], []
    start = time.perf_counter()
    for frame in open_source(source, FrameRange(0, frames)):
        times.append(1e3 * (time.perf_counter() - start))
        pictures.append(frame.picture)
        start = time.perf_counter()
    if len(pictures) < frames:
        raise SourceError(
            f"{source} has {len(pictures)} frames, but {frames} are needed; give a longer source "
            "or fewer --frames"
        )
    clicks = prompts or _grid_clicks(pictures[0], objects)
    return BenchClip(source, tuple(pictures), clicks, tuple(times))


def _write_video(path: Path, size: int, frames: int, objects: int) -> tuple[Prompt, ...]:
    """Write a synthetic clip as a video and return a click per object."""
    drawn = clip(
        BENCH_SEED, frames=frames, size=size, objects=objects, split="heldout", photographs=False
    )
    encoder = VideoEncoder(path, fps=30, size=(size, size))
    for frame in drawn.frames:
        encoder.write(frame)
    encoder.close()
    return tuple(first_prompts(drawn, "click"))


def _grid_clicks(picture: Frame, objects: int) -> tuple[Prompt, ...]:
    """Return clicks on a 4 x 4 grid."""
    height, width = picture.shape[:2]
    return tuple(
        Prompt(i + 1, points=[((i % 4 + 0.5) * width / 4, (i // 4 + 0.5) * height / 4)])
        for i in range(objects)
    )
