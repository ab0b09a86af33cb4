"""Small holes and islands of masks, changed in the logits at the model's own resolution.

The original finds them with a CUDA extension; OpenCV's connected components are the same.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.results import MASK_LOGIT

VIDEO_MARGIN = 0.1
"""A filled pixel is set this far above the threshold (SAM 2, `fill_holes_in_mask_scores`)."""

IMAGE_MARGIN = 10.0
"""A changed pixel is set this far beyond the threshold (SAM 2, `postprocess_masks`)."""


def remove_small_regions(
    logits: NDArray[np.float32],
    *,
    hole_area: float,
    island_area: float = 0,
    threshold: float = MASK_LOGIT,
    margin: float = IMAGE_MARGIN,
) -> NDArray[np.float32]:
    """Return logits [s, s] without small holes and islands; the input is not changed.

    Regions are 8-connected. Islands are those of the given mask: a filled hole does not join two.

    Args:
        hole_area: Largest area of a hole to fill, pixels; 0 fills none.
        island_area: Largest area of an island to remove, pixels; 0 removes none.
        threshold: Pixels with logits above this are in the mask.
        margin: Distance of changed logits from the threshold.
    """
    mask = logits > np.float32(threshold)
    changed = logits
    if hole_area > 0:
        changed = np.where(_small(~mask, hole_area), np.float32(threshold + margin), changed)
    if island_area > 0:
        changed = np.where(_small(mask, island_area), np.float32(threshold - margin), changed)
    return changed


def _small(regions: NDArray[np.bool_], max_area: float) -> NDArray[np.bool_]:
    """Return the pixels of connected regions of at most `max_area` pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(regions.view(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] <= max_area
    small[0] = False  # what lies between the regions
    return small[labels]
