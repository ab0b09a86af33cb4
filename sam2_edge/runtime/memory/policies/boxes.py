"""Boxes of masks: x1, y1, x2, y2 in pixels of the mask, x2 and y2 exclusive."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Box = NDArray[np.float64]
"""[4] float64."""


def mask_box(mask: NDArray[np.bool_]) -> Box | None:
    """The box around a mask [H,W]; None if it is empty."""
    columns = np.flatnonzero(mask.any(axis=0))
    if columns.size == 0:
        return None
    rows = np.flatnonzero(mask.any(axis=1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def box_area(box: Box) -> float:
    """0 for a box that is turned inside out."""
    return float(max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0))


def box_iou(first: Box, second: Box) -> float:
    """Intersection over union; 0 where both are empty."""
    shared = box_area(np.array([*np.maximum(first, second)[:2], *np.minimum(first, second)[2:]]))
    united = box_area(first) + box_area(second) - shared
    return shared / united if united > 0 else 0.0


def largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part of a mask [H,W], by 8 neighbors; the mask itself if empty."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return mask
    return np.asarray(labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))


def box_share(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Area of the box around a mask [H,W] over that of the box around it and the largest part of
    another one; 1 where the other one does not reach beyond it, 0 for an empty mask.
    """
    box = mask_box(mask)
    if box is None:
        return 0.0
    both = mask_box(mask | largest_part(other))
    assert both is not None  # it holds the mask
    return box_area(box) / box_area(both)
