"""Which arrays a camera may deliver as frames, and what becomes of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import cv2
import numpy as np

from sam2_edge.runtime.preprocess import Frame

_TO_BGR = {1: cv2.COLOR_GRAY2BGR, 2: cv2.COLOR_YUV2BGR_YUY2, 4: cv2.COLOR_BGRA2BGR}
"""Conversions by number of channels."""

_HOW_TO_CONVERT = (
    "convert it to [H, W, 3] uint8 in BGR order: at the end of a GStreamer pipeline "
    "(videoconvert ! video/x-raw,format=BGR ! appsink), or in the camera given to CameraLoop"
)


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a frame is skipped: `kind` is what it counts as; `reason` is a clause for the log."""

    kind: Literal["blank", "corrupt", "unsupported"]
    reason: str


def usable_frame(picture: Any, *, uniform: bool) -> Frame | Unusable:
    """Return a camera's frame as [H, W, 3] uint8 BGR, or why it cannot be tracked.

    Gray [H, W] and [H, W, 1], BGRA [H, W, 4] and YUYV [H, W, 2] are converted. Which of the 65,536
    values of a 16-bit sensor matter only its user knows, so these frames are not scaled.

    Args:
        picture: What the camera returned.
        uniform: Whether to accept frames of a single color.
    """
    if not isinstance(picture, np.ndarray):
        return Unusable("unsupported", f"a frame is a {type(picture).__name__}; {_HOW_TO_CONVERT}")
    if picture.size == 0:
        return Unusable("corrupt", "a frame is empty")
    channels = (*picture.shape, 1)[2] if picture.ndim in (2, 3) else None
    odd = channels == 2 and picture.shape[1] % 2 == 1  # YUYV holds two pixels in four bytes
    if channels not in (1, 2, 3, 4) or picture.dtype != np.uint8 or odd:
        layout = ", ".join(["H", "W", *map(str, picture.shape[2:])][: picture.ndim])
        return Unusable("unsupported", f"a frame is [{layout}] {picture.dtype}; {_HOW_TO_CONVERT}")
    frame = np.ascontiguousarray(picture)
    if channels != 3:
        frame = cast("Frame", cv2.cvtColor(frame, _TO_BGR[channels]))
    if not uniform and _is_uniform(frame):
        return Unusable("blank", "the picture has a single color")
    return frame


def _is_uniform(frame: Frame) -> bool:
    # Every 16th row and column tells for most frames, at 1/256 of the cost, that they are not.
    sparse = frame[::16, ::16]
    values = frame.reshape(-1)
    return bool((sparse == sparse[0, 0]).all()) and bool((values[3:] == values[:-3]).all())
