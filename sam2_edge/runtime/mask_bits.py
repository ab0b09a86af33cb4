"""What the mask bits graph takes and gives: weights of the resize to a frame, and packed masks."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

PACKED = 8
"""Pixels in a byte."""

_CACHED_SIZES = 8
"""Pairs of sizes whose weights are kept: the two sides of a few sizes of frames."""


@lru_cache(maxsize=_CACHED_SIZES)
def resize_weights(size_in: int, size_out: int) -> NDArray[np.float32]:
    """Weights [size_out, size_in] of a bilinear filter with half-pixel centers, read-only.

    They are those of OpenCV's INTER_LINEAR, which depending on the processor rounds the position to
    float32 first (IPP does not).
    """
    position = (np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5
    position = np.clip(position, 0, size_in - 1)
    first = np.minimum(position.astype(np.intp), max(0, size_in - 2))
    share = (position - first).astype(np.float32)
    weights = np.zeros((size_out, size_in), np.float32)
    rows = np.arange(size_out)
    weights[rows, first] = 1 - share
    weights[rows, np.minimum(first + 1, size_in - 1)] += share
    weights.flags.writeable = False
    return weights


def row_weights(mask_size: int, height: int) -> NDArray[np.float32]:
    """Input `row_weights` [H,s] of the graph for frames of a height in pixels."""
    return resize_weights(mask_size, height)


@lru_cache(maxsize=_CACHED_SIZES)
def column_weights(mask_size: int, width: int) -> NDArray[np.float32]:
    """Input `column_weights` [s,K,8] of the graph for frames of a width in pixels, read-only.

    Columns beyond the width have no weight, so their bits are 0.
    """
    weights = np.zeros((mask_size, -(-width // PACKED), PACKED), np.float32)
    weights.reshape(mask_size, -1)[:, :width] = resize_weights(mask_size, width).T
    weights.flags.writeable = False
    return weights


def unpack_masks(bits: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """Masks [B,H,W] from the graph's output [B,H,K]."""
    return np.unpackbits(bits, axis=-1, count=width).view(np.bool_)


def packed_box(bits: NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
    """x1, y1, x2, y2 around a mask packed as [H,K], x2 and y2 exclusive; None if it is empty."""
    x, y, width, height = cv2.boundingRect(bits)  # of the bytes that are not 0
    if not width:
        return None
    inside = bits[y : y + height]
    first = int(np.bitwise_or.reduce(inside[:, x]))
    last = int(np.bitwise_or.reduce(inside[:, x + width - 1]))
    zeros_before = PACKED - first.bit_length()
    zeros_after = (last & -last).bit_length() - 1
    return PACKED * x + zeros_before, y, PACKED * (x + width) - zeros_after, y + height


def packed_area(bits: NDArray[np.uint8]) -> int:
    """Number of pixels of a packed mask."""
    return int(cv2.norm(bits, cv2.NORM_HAMMING))
