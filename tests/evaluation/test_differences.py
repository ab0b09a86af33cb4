"""Differences of tensors, against cases computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sam2_edge.evaluation.differences import difference


def test_differences_by_hand() -> None:
    found = difference(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    assert found is not None
    assert (found.max_abs, found.mean_abs) == (2.0, 1.0)
    assert found.cosine == pytest.approx(9 / math.sqrt(5 * 17))
    assert found.relative_l2 == pytest.approx(2 / math.sqrt(17))
    same = difference(np.zeros(3), np.zeros(3))
    assert same is not None
    assert (same.cosine, same.relative_l2) == (1.0, 0.0)
    assert difference(np.zeros((0, 2)), np.zeros((0, 2))) is None
    with pytest.raises(ValueError, match="both must be the same"):
        difference(np.zeros(2), np.zeros(3))
