"""From an OpenCV frame to the image encoder's input."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.errors import SourceError

Frame = NDArray[np.uint8]
"""A picture as OpenCV gives it: [H, W, 3] uint8, BGR."""


def check_frame(frame: NDArray[Any]) -> Frame:
    """Return the frame, or raise SourceError if it is not [H,W,3] uint8."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        kind = getattr(frame, "dtype", type(frame).__name__)
        raise SourceError(f"a frame is {kind}; give a uint8 array [H, W, 3] in BGR order")
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise SourceError(
            f"a frame has shape {frame.shape}; give [H, W, 3] in BGR order (cv2.cvtColor converts "
            "gray pictures and those with alpha)"
        )
    return frame


def model_image(frame: Frame, size: int) -> NDArray[np.uint8]:
    """A frame [H,W,3] BGR as the encoder's input [1,size,size,3] RGB, aspect not kept.

    The original predictor resizes with Pillow's bicubic filter. Pixel area averaging (bilinear
    where the frame is smaller than the model) is the closest of OpenCV's fast filters; the
    differences are in docs/measurements.md.
    """
    height, width = frame.shape[:2]
    if (height, width) != (size, size):
        shrink = height * width > size * size
        filtering = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        frame = cast("Frame", cv2.resize(frame, (size, size), interpolation=filtering))
    return cast("Frame", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))[None]
