"""Frames of a real video at a model's size, and the one click that benchmarks follow in them."""

from __future__ import annotations

import cv2
import numpy as np

from sam2_edge.runtime.sources import FrameRange
from sam2_edge.runtime.sources.video import open_source

CLICK = (0.35, 0.45)
"""Where the object is clicked, as shares of width and height."""


def frames_of(video: str, count: int, size: int) -> list[np.ndarray]:
    """The first frames, resized to the model input: resampling is not compared."""
    source = open_source(video, FrameRange(0, count))
    return [cv2.resize(f.picture, (size, size), interpolation=cv2.INTER_AREA) for f in source]


def click(size: int) -> tuple[float, float]:
    """The click in pixels of the model's input."""
    return round(CLICK[0] * size), round(CLICK[1] * size)
