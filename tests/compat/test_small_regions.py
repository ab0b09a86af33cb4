"""Small holes are filled and small islands removed, in logits."""

from __future__ import annotations

import numpy as np

from sam2_edge.compat.small_regions import VIDEO_MARGIN, remove_small_regions


def test_regions_are_8_connected_and_islands_are_those_of_the_given_mask() -> None:
    logits = np.full((8, 8), -1, np.float32)
    logits[0, 0] = logits[1, 1] = 1  # an island of two pixels that touch at a corner
    logits[3:8, 3:8] = 1
    logits[5, 5] = -1  # a hole
    cleaned = remove_small_regions(logits, hole_area=1, island_area=2)
    assert (cleaned[:2, :2] <= 0).all()
    assert cleaned[5, 5] == 10
    assert (cleaned[3:8, 3:8] > 0).all()
    unchanged = remove_small_regions(logits, hole_area=0, island_area=1)
    np.testing.assert_array_equal(unchanged, logits)


def test_threshold_and_margin_move_what_is_changed() -> None:
    logits = np.full((8, 8), 1, np.float32)
    logits[4, 4] = 0.25
    assert (remove_small_regions(logits, hole_area=1) == logits).all()
    filled = remove_small_regions(logits, hole_area=1, threshold=0.5, margin=VIDEO_MARGIN)
    assert filled[4, 4] == np.float32(0.6)
    assert filled.dtype == np.float32
