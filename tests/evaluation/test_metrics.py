"""J and F, against cases computed by hand and a slow, literal implementation of the definition."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam2_edge.evaluation.metrics import (
    Accuracy,
    Statistics,
    boundary,
    boundary_accuracy,
    mean_accuracy,
    object_accuracy,
    region_similarity,
    statistics,
)


def _rectangle(top: int, left: int, bottom: int, right: int, side: int = 12) -> np.ndarray:
    mask = np.zeros((side, side), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def test_region_similarity_by_hand() -> None:
    # 4 x 4 against the same moved by one column: 12 pixels shared, 20 covered.
    assert region_similarity(_rectangle(4, 4, 8, 8), _rectangle(4, 5, 8, 9)) == 12 / 20


def test_boundary_accuracy_by_hand() -> None:
    # A boundary pixel differs from its right, lower or lower right neighbor. For 4 x 4 pixels at
    # (4, 4) these are rows and columns 3 to 7 without the 3 x 3 pixels in their middle.
    square = _rectangle(4, 4, 8, 8)
    assert boundary(square).sum() == 25 - 9
    # Moved by four columns it touches the edge of the picture, which is no boundary: column 11 has
    # only its first and last pixel.
    moved = _rectangle(4, 8, 8, 12)
    assert boundary(moved).sum() == 5 + 5 + 3
    # Within a pixel of the other's boundary: the five of column 7, and rows 3 and 7 beside it.
    precision, recall = 7 / 16, 7 / 13
    expected = 2 * precision * recall / (precision + recall)
    assert boundary_accuracy(square, moved, tolerance=1) == pytest.approx(expected)


def test_the_tolerance_is_a_share_of_the_diagonal() -> None:
    near, far = np.zeros((480, 854), np.bool_), np.zeros((480, 854), np.bool_)
    near[100:200, 100:200] = True
    far[100:200, 108:208] = True  # 0.008 of the diagonal of 980 pixels, rounded up, is 8
    assert boundary_accuracy(near, far) == 1
    assert boundary_accuracy(near, np.roll(far, 1, axis=1)) < 1


@pytest.mark.parametrize(
    ("ours", "theirs", "j", "f"),
    [
        (np.zeros((6, 6)), np.zeros((6, 6)), 1, 1),
        (_rectangle(1, 1, 3, 3, 6), np.zeros((6, 6)), 0, 0),
        (np.zeros((6, 6)), _rectangle(1, 1, 3, 3, 6), 0, 0),
        (np.ones((6, 6)), np.ones((6, 6)), 1, 1),
    ],
    ids=["both empty", "nothing there", "nothing found", "the whole picture"],
)
def test_empty_and_full_masks(ours: np.ndarray, theirs: np.ndarray, j: float, f: float) -> None:
    assert region_similarity(ours, theirs) == j
    assert boundary_accuracy(ours, theirs) == f


_MASKS = arrays(np.bool_, (9, 7))


@given(_MASKS, _MASKS, st.integers(1, 3))
def test_boundary_accuracy_is_the_literal_definition(
    ours: np.ndarray, theirs: np.ndarray, pixels: int
) -> None:
    def edge(mask: np.ndarray) -> list[tuple[int, int]]:
        height, width = mask.shape
        return [
            (y, x)
            for y in range(height)
            for x in range(width)
            if any(
                mask[y, x] != mask[min(y + dy, height - 1), min(x + dx, width - 1)]
                for dy, dx in ((0, 1), (1, 0), (1, 1))
            )
        ]

    def share(points: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        near = [any((y - v) ** 2 + (x - u) ** 2 <= pixels**2 for v, u in others) for y, x in points]
        return sum(near) / len(near) if near else 1.0

    a, b = edge(ours), edge(theirs)
    precision, recall = share(a, b), share(b, a)
    want = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert boundary_accuracy(ours, theirs, tolerance=pixels) == pytest.approx(want)


@given(_MASKS, _MASKS)
def test_measures_are_symmetric_and_one_for_equal_masks(a: np.ndarray, b: np.ndarray) -> None:
    assert region_similarity(a, b) == region_similarity(b, a)
    assert boundary_accuracy(a, b) == pytest.approx(boundary_accuracy(b, a))
    assert region_similarity(a, a) == boundary_accuracy(a, a) == 1


def test_the_first_and_the_last_frame_do_not_count() -> None:
    good, bad = _rectangle(2, 2, 6, 6), _rectangle(8, 8, 10, 10)
    score = object_accuracy([bad, good, good, bad], [good] * 4)
    assert score == Accuracy(1.0, 1.0)
    assert object_accuracy([good, bad, good, good], [good] * 4).j == 0.5


def test_the_mean_is_over_objects() -> None:
    mean = mean_accuracy([Accuracy(0.2, 0.4), Accuracy(0.6, 1.0)])
    assert (mean.j, mean.f, mean.j_and_f) == pytest.approx((0.4, 0.7, 0.55))


def test_recall_and_decay_by_hand() -> None:
    # Of frames 0 to 7 the quarters end at 7/4 and begin at 21/4: 0 to 2 against 5 to 7. Exactly
    # 0.5 is not recalled.
    found = statistics([1.0, 0.8, 0.9, 0.7, 0.5, 0.4, 0.3, 0.2])
    assert found.mean == pytest.approx(0.6)
    assert found.recall == 4 / 8
    assert found.decay == pytest.approx(0.9 - 0.3)


def test_recall_and_decay_of_few_frames() -> None:
    assert statistics([0.7]) == Statistics(0.7, 1.0, 0.0)
    assert statistics([0.9, 0.1]).decay == pytest.approx(0.8)
    with pytest.raises(ValueError, match="no values"):
        statistics([])


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=256))
def test_decay_is_the_literal_definition(thousandths: list[int]) -> None:
    # Quarters of davis2017-evaluation: positions 1 to n in four steps, rounded half up, both ends
    # among them.
    values = [value / 1000 for value in thousandths]
    ends = (np.round(np.linspace(1, len(values), 5) + 1e-10) - 1).astype(int)
    quarters = [values[a : b + 1] for a, b in pairwise(ends)]
    want = np.mean(quarters[0]) - np.mean(quarters[3])
    assert statistics(values).decay == pytest.approx(want, abs=1e-12)


def test_masks_that_do_not_match_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"\(6, 6\) and \(6, 7\)"):
        region_similarity(np.zeros((6, 6)), np.zeros((6, 7)))
    with pytest.raises(ValueError, match="2 predicted and 3 true"):
        object_accuracy([np.zeros((6, 6))] * 2, [np.zeros((6, 6))] * 3)
