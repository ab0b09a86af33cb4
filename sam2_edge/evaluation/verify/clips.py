"""Frames to compare on, with prompts that suit them where nobody gives any."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam2_edge.errors import SourceError
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.sources import FrameRange
from sam2_edge.runtime.sources.video import open_source
from sam2_edge.synthetic import center_click, clip

SYNTHETIC_SEED = 116
"""A held-out clip in which one of two objects is out of sight for five frames and comes back."""

MAX_FRAMES = 500
"""They are kept, and PyTorch's loop keeps what it made of each."""


@dataclass(frozen=True, slots=True)
class PromptedClip:
    """Numbers and pictures of consecutive frames, and prompts for the first: a click on one object
    and a mask of another, so that every graph runs.
    """

    name: str
    numbers: tuple[int, ...]
    pictures: tuple[Frame, ...]
    prompts: tuple[Prompt, ...]


def prompted_clip(source: Path | None, chosen: FrameRange, image_size: int) -> PromptedClip:
    """Frames of a video or a folder, prompted in their middle, or of a synthetic clip.

    image_size: of the synthetic clip, pixels.

    Raises SourceError for a source that cannot be read, for fewer than two frames or more than
    `MAX_FRAMES`, and for a synthetic clip without an end.
    """
    if chosen.stop is not None and chosen.stop - chosen.start > MAX_FRAMES:
        raise SourceError(
            f"{chosen.stop - chosen.start} frames are asked for; give {MAX_FRAMES} or fewer"
        )
    found = _synthetic(chosen, image_size) if source is None else _recorded(source, chosen)
    if len(found.numbers) < 2:
        raise SourceError(
            f"{found.name} gives {len(found.numbers)} frame of those asked for; two or more are "
            "needed, as memory is used from the second on"
        )
    return found


def _recorded(source: Path, chosen: FrameRange) -> PromptedClip:
    frames = list(itertools.islice(open_source(source, chosen), MAX_FRAMES + 1))
    if len(frames) > MAX_FRAMES:
        raise SourceError(f"{source} has more than {MAX_FRAMES} frames; choose some: 0:100")
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
    if chosen.stop is None:
        raise SourceError("a synthetic clip has no end of its own; give frames such as 0:32")
    # Photographs would need scikit-image.
    drawn = clip(SYNTHETIC_SEED, frames=chosen.stop, size=size, split="heldout", photographs=False)
    clicked, given = (drawn.mask(chosen.start, object_id) for object_id in (1, 2))
    if not (clicked.any() and given.any()):
        raise SourceError(
            f"on frame {chosen.start} of the synthetic clip an object is out of sight and cannot "
            "be prompted; begin with another frame, such as 0"
        )
    numbers = tuple(range(chosen.start, chosen.stop))
    return PromptedClip(
        name="a synthetic clip",
        numbers=numbers,
        pictures=tuple(drawn.frames[number] for number in numbers),
        prompts=(
            Prompt(1, points=[center_click(clicked)]),
            Prompt(2, mask=given.astype(np.uint8)),
        ),
    )
