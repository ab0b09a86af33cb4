"""Non-maximum suppression of boxes, decision for decision that of torchvision on the CPU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def suppress_boxes(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], threshold: float
) -> NDArray[np.intp]:
    """Indices of the boxes that stay, best score first, equal scores in their given order.

    boxes: [K,4] float32 x1,y1,x2,y2. scores: [K]. threshold: a box goes where its IoU with a better
    one that stays is above this.

    OpenCV's `NMSBoxes` decides otherwise: it compares with the threshold rounded to float32, and to
    it two boxes without area, such as those around masks one pixel wide, are the same. Here their
    IoU is 0/0 and suppresses nothing. IoUs are float32 and the threshold is not, as in torchvision.
    """
    corners = np.asarray(boxes, np.float32).reshape(-1, 4)
    low, high = corners[:, :2], corners[:, 2:]
    areas = np.prod(high - low, axis=1)
    order = np.argsort(-np.asarray(scores), kind="stable")
    kept: list[np.intp] = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(best)
        sides = np.minimum(high[best], high[rest]) - np.maximum(low[best], low[rest])
        shared = np.prod(np.clip(sides, 0, None), axis=1)
        with np.errstate(invalid="ignore"):
            overlaps = shared / (areas[best] + areas[rest] - shared)
        order = rest[~(overlaps.astype(np.float64) > threshold)]
    return np.array(kept, np.intp)
