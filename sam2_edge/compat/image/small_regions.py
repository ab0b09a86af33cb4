"""Small holes and small islands of a mask, in its logits at the model's own resolution."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

LOGIT_STEP = 10.0
"""A pixel that changes sides is set this far beyond the threshold (sam2, `postprocess_masks`)."""


def without_small_regions(
    logits: NDArray[np.float32], *, threshold: float, hole_area: float, island_area: float
) -> NDArray[np.float32]:
    """Logits [s,s] with holes of up to `hole_area` and islands of up to `island_area` pixels gone.

    Regions are connected over corners too. Islands are those of the mask as it is given: what is
    filled as a hole joins no island. An area of 0 leaves its kind alone; the input is not changed.
    """
    inside = logits > np.float32(threshold)
    changed = logits
    if hole_area > 0:
        holes = _small(~inside, hole_area)
        changed = np.where(holes, np.float32(threshold + LOGIT_STEP), changed)
    if island_area > 0:
        islands = _small(inside, island_area)
        changed = np.where(islands, np.float32(threshold - LOGIT_STEP), changed)
    return changed


def _small(regions: NDArray[np.bool_], area: float) -> NDArray[np.bool_]:
    """The pixels of connected regions of at most `area` pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(regions.astype(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] <= area
    small[0] = False  # what lies between the regions
    return small[labels]
