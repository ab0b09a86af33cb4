"""Preprocessing of an OpenCV frame for the image encoder."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.errors import SourceError
from sam2_edge.runtime.short_repr import short_repr

Frame = NDArray[np.uint8]
"""An image as OpenCV returns it: [H, W, 3] uint8, BGR."""


@dataclass(frozen=True, slots=True)
class PreparedFrame:
    """A frame that has been checked and resized for the model; the frame itself may be reused.

    Attributes:
        pixels: [1, S, S, 3] uint8 RGB, the model's input.
        size: Height, width of the frame in pixels.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]

    __repr__ = short_repr


TrackerInput: TypeAlias = NDArray[np.uint8] | PreparedFrame
"""A frame as `VideoTracker.track` takes it."""


def prepare_frame(frame: NDArray[Any] | PreparedFrame, size: int) -> PreparedFrame:
    """Return a frame with the model's input for it; one that is prepared is only checked.

    Args:
        frame: [H, W, 3] uint8 BGR, or a frame prepared for a model of the same size.
        size: Side of the model's input, pixels.

    Raises:
        SourceError: If the frame has a different shape or dtype.
    """
    if not isinstance(frame, PreparedFrame):
        return PreparedFrame(model_image(frame, size), (frame.shape[0], frame.shape[1]))
    pixels = frame.pixels
    if pixels.shape != (1, size, size, 3) or pixels.dtype != np.uint8:
        raise SourceError(
            f"a prepared frame is {pixels.dtype} {pixels.shape}, but this model takes uint8 "
            f"{(1, size, size, 3)}; prepare it with this tracker's own `prepare`"
        )
    return frame


def model_image(frame: NDArray[Any], size: int) -> NDArray[np.uint8]:
    """Check a frame and resize it to the model's square input, ignoring the aspect ratio.

    The original predictor resizes with Pillow's bicubic filter. Area averaging (bilinear for frames
    smaller than the model) is the closest of OpenCV's fast filters; docs/architecture.md lists the
    differences.

    Args:
        frame: [H, W, 3] uint8 BGR.
        size: Side of the model's input, pixels.

    Returns:
        [1, size, size, 3] uint8 RGB.

    Raises:
        SourceError: If the frame has a different shape or dtype.
    """
    check_frame(frame)
    height, width = frame.shape[:2]
    if (height, width) != (size, size):
        shrink = height * width > size * size
        filtering = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        frame = cv2.resize(frame, (size, size), _buffer(size), interpolation=filtering)
    return cast("Frame", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))[None]


def check_frame(frame: NDArray[Any]) -> None:
    """Raise SourceError unless a frame is [H, W, 3] uint8."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        kind = getattr(frame, "dtype", type(frame).__name__)
        raise SourceError(f"a frame is {kind}; give a uint8 array [H, W, 3] in BGR order")
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise SourceError(
            f"a frame has shape {frame.shape}; give [H, W, 3] in BGR order (cv2.cvtColor converts "
            "gray images and those with alpha)"
        )


class _Buffer(threading.local):
    """The resized frame of each thread, before its channels are swapped."""

    pixels = np.empty((0, 0, 3), np.uint8)


_resized = _Buffer()


def _buffer(size: int) -> NDArray[np.uint8]:
    """Return this thread's buffer: new memory for each frame costs 1 ms at 1024 pixels."""
    if len(_resized.pixels) != size:
        _resized.pixels = np.empty((size, size, 3), np.uint8)
    return _resized.pixels
