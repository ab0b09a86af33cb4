"""Selects the cells of a memory to attend to, if memory attention takes only some of them.

Half of the cells are spread evenly over the frame to preserve context; the others are the closest
to the object's mask. Ties are broken by a fixed order whose prefixes are evenly spread: a mask that
is too large is thinned evenly, and a frame without the object keeps an even grid. Selecting by
distance alone costs nano much more accuracy.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import MASK_PIXELS, Geometry
from sam2_edge.runtime.results import MASK_LOGIT

SPREAD_SHARE = 0.5
"""Share of the cells selected regardless of the object's position."""


def select_cells(logits: NDArray[np.float32], geometry: Geometry) -> NDArray[np.int32]:
    """Select the cells of B memories from the mask logits [B, s, s] of their frames.

    Returns:
        `y * w + x` of each, [B, N] int32, ascending; N is the geometry's `memory_tokens`.
    """
    kept = geometry.memory_tokens
    assert kept is not None  # callers check
    return np.stack([choose_cells(covered_cells(mask), kept) for mask in logits])


def covered_cells(logits: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the cells [h, w] that contain a foreground pixel of the logits [4h, 4w]."""
    height, width = (size // MASK_PIXELS for size in logits.shape)
    inside = (logits > MASK_LOGIT).reshape(height, MASK_PIXELS, width, MASK_PIXELS)
    return np.logical_or.reduce(inside, axis=(1, 3))


def choose_cells(covered: NDArray[np.bool_], count: int) -> NDArray[np.int32]:
    """Return the ascending indices of `count` cells of a square grid [h, h]."""
    order = spreading_order(len(covered))
    key = _squared_distances(covered).ravel() * order.size + order
    spread = order < int(count * SPREAD_SHARE)
    key[spread] = order[spread] - order.size  # before all others
    chosen = np.argpartition(key, count)[:count].astype(np.int32)
    chosen.sort()
    return chosen


@cache
def spreading_order(side: int) -> NDArray[np.int64]:
    """Return the rank [h*h] of every cell in an order whose prefixes are all evenly spread.

    This is the order of ordered dithering (Bayer 1973), cropped to the grid.
    """
    order = np.zeros((1, 1), np.int64)
    while len(order) < side:
        order = np.block([[4 * order, 4 * order + 2], [4 * order + 3, 4 * order + 1]])
    ranks = np.argsort(np.argsort(order[:side, :side].ravel()))
    ranks.flags.writeable = False  # shared by all callers
    return ranks


def _squared_distances(covered: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return each cell's squared distance to the closest covered one; 0 if none is covered."""
    if not covered.any():
        return np.zeros(covered.shape, np.int64)
    uncovered = (~covered).astype(np.uint8)
    distance = cv2.distanceTransform(uncovered, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Squared distances on a grid are integers, so rounding makes ties exact.
    return np.rint(np.square(distance, dtype=np.float64)).astype(np.int64)
