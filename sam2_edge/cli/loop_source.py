"""What `run` and `serve` know of a source before they open it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sam2_edge.errors import SourceError
from sam2_edge.runtime.sources.camera import Camera, is_camera
from sam2_edge.runtime.sources.location import locate
from sam2_edge.runtime.sources.video import open_source
from sam2_edge.synthetic.camera import SyntheticCamera


@dataclass(frozen=True, slots=True)
class LoopSource:
    """A source of a camera loop.

    Attributes:
        camera: A location for `open_camera`, or a function that opens the synthetic camera.
        fps: Frame rate of a file; None for a camera.
        every_frame: Whether every frame is tracked.
        paced: Whether a file is read at its own frame rate.
    """

    camera: str | Callable[[], Camera]
    fps: float | None
    every_frame: bool
    paced: bool


def find_source(text: str, *, every_frame: bool | None, paced: bool) -> LoopSource:
    """Find out what a source is.

    Args:
        text: A location for `open_camera`, or "synth" or "synth:SEED" for the synthetic camera.
        every_frame: Whether to track every frame; None for every frame of files only.
        paced: Whether to read a file at its own frame rate.

    Raises:
        SourceError: If a file does not exist or cannot be read.
    """
    synth = _synthetic(text)
    is_file = is_recorded(text)
    if is_file and not locate(text).path.exists():
        raise SourceError(
            f"{text} does not exist; give a file, a folder of images, a camera's number or URL, "
            "or synth"
        )
    return LoopSource(
        partial(SyntheticCamera, int(synth[1] or 0), paced=paced) if synth else text,
        open_source(text).fps if is_file else None,
        is_file if every_frame is None else every_frame,
        paced,
    )


def is_recorded(source: str) -> bool:
    """Return whether a source is a file or a folder rather than a camera or the synthetic one."""
    return not _synthetic(source) and not is_camera(source)


def _synthetic(source: str) -> re.Match[str] | None:
    """Match "synth" and "synth:SEED", unless there is a file of that name, which comes first."""
    return None if Path(source).exists() else re.fullmatch(r"synth(?::(\d+))?", source)
