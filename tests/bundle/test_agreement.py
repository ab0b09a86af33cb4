"""When two runs of a graph agree, against cases computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sam2_edge.bundle.agreement import BFLOAT16_STEP, relative_difference, rows_of_equal_choice


def test_objects_with_the_same_choice_are_found() -> None:
    ours = {"best_index": np.array([1, 2, 0]), "object_score": np.array([3.0, 1.0, -1.0])}
    theirs = {"best_index": np.array([1, 1, 0]), "object_score": np.array([2.0, 1.0, 0.5])}
    assert list(rows_of_equal_choice(ours, theirs)) == [True, False, False]
    assert rows_of_equal_choice({}, {}) == slice(None)


def test_differences_are_relative_to_the_largest_value_and_at_least_to_one() -> None:
    want = np.array([4.0, -8.0])
    assert relative_difference(np.array([5.0, -8.0]), want) == pytest.approx(1 / 8)
    assert relative_difference(np.array([5.0, -8.0]), want, magnitude=100) == pytest.approx(1e-2)
    assert relative_difference(np.array([0.75]), np.array([0.25])) == 0.5
    assert math.isnan(relative_difference(np.array([math.nan]), np.array([1.0])))


def test_a_rounding_step_is_not_counted() -> None:
    want = np.array([4.0, 1.0])
    got = want * (1 + BFLOAT16_STEP)
    assert relative_difference(got, want, step=BFLOAT16_STEP) == 0.0
    assert relative_difference(got + 0.5, want, step=BFLOAT16_STEP) == pytest.approx(0.5 / 4)


def test_of_packed_bits_the_share_that_differs_counts() -> None:
    assert relative_difference(np.uint8([[0b1000_0001]]), np.uint8([[0b1000_0000]])) == 1 / 8
