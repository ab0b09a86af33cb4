"""Boxes of masks: x1, y1, x2, y2 in mask pixels, with exclusive x2 and y2."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Box = NDArray[np.float64]
"""[4] float64."""


def mask_box(mask: NDArray[np.bool_]) -> Box | None:
    """Return the box around a mask [H, W]; None if it is empty."""
    columns = np.flatnonzero(mask.any(axis=0))
    if columns.size == 0:
        return None
    rows = np.flatnonzero(mask.any(axis=1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def box_area(box: Box) -> float:
    """Return the area of a box, 0 if it is inverted."""
    return float(max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0))


def box_iou(first: Box, second: Box) -> float:
    """Return the intersection over union; 0 if both are empty."""
    shared = box_area(np.array([*np.maximum(first, second)[:2], *np.minimum(first, second)[2:]]))
    united = box_area(first) + box_area(second) - shared
    return shared / united if united > 0 else 0.0


def largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest 8-connected part of a mask [H, W]; the mask itself if it is empty."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return mask
    return np.asarray(labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))


def box_share(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the area of a mask's box as a share of the box around it and another mask.

    Only the largest part of the other mask counts. The share is 1 if that part lies within the box,
    and 0 if the mask is empty.
    """
    box = mask_box(mask)
    if box is None:
        return 0.0
    both = mask_box(mask | largest_part(other))
    assert both is not None  # it includes the mask
    return box_area(box) / box_area(both)
