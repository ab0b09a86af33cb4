"""Selected cells of a memory, against a naive implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Geometry
from sam2_edge.runtime.memory.token_selection import (
    SPREAD_SHARE,
    choose_cells,
    covered_cells,
    select_cells,
    spreading_order,
)

Grid = NDArray[np.bool_]

SIDES = (2, 4, 7, 14, 16, 20)

GRIDS = st.sampled_from(SIDES).flatmap(lambda side: arrays.arrays(np.bool_, (side, side)))


def distances(covered: Grid) -> NDArray[np.int64]:
    """Squared distance of each cell to the closest covered one."""
    y, x = np.indices(covered.shape).reshape(2, -1)
    to = np.flatnonzero(covered)
    return ((y[:, None] - y[to]) ** 2 + (x[:, None] - x[to]) ** 2).min(axis=1)


def blocks(cells: NDArray[np.int32], side: int, block: int) -> NDArray[np.int64]:
    """Number of cells in each square of block x block."""
    grid = np.zeros(side * side, np.int64)
    grid[cells] = 1
    few = side // block
    return grid.reshape(few, block, few, block).sum(axis=(1, 3))


@settings(deadline=None)
@given(covered=GRIDS, percent=st.integers(0, 100))
def test_the_requested_number_is_selected_and_no_other_cell_is_closer(
    covered: Grid, percent: int
) -> None:
    count = 1 + percent * (covered.size - 2) // 100
    cells = choose_cells(covered, count)
    assert cells.dtype == np.int32
    assert len(cells) == count
    assert (np.diff(cells) > 0).all()
    assert 0 <= cells[0] <= cells[-1] < covered.size
    spread = np.flatnonzero(spreading_order(len(covered)) < int(count * SPREAD_SHARE))
    assert set(spread) <= set(cells.tolist())
    if covered.any():
        distance = distances(covered)
        by_closeness = np.setdiff1d(cells, spread)
        assert distance[by_closeness].max() <= np.delete(distance, cells).min()


@settings(deadline=None)
@given(covered=GRIDS)
def test_an_object_that_fits_is_selected_whole(covered: Grid) -> None:
    count = max(1, 2 * int(covered.sum()))
    if count >= covered.size:
        return
    assert set(np.flatnonzero(covered)) <= set(choose_cells(covered, count).tolist())


@pytest.mark.parametrize("side", [8, 14, 16, 20])
@pytest.mark.parametrize("filled", [False, True])
def test_an_empty_or_full_frame_gives_an_even_grid(side: int, filled: bool) -> None:
    cells = choose_cells(np.full((side, side), filled), side * side // 4)
    assert (blocks(cells, side, 2) == 1).all()


@settings(deadline=None)
@given(count=st.integers(1, 255))
def test_any_number_of_cells_is_spread_evenly(count: int) -> None:
    cells = choose_cells(np.zeros((16, 16), np.bool_), count)
    for block in (8, 4):
        found = blocks(cells, 16, block)
        assert found.max() - found.min() <= 1


def test_an_object_that_does_not_fit_is_thinned_evenly() -> None:
    covered = np.zeros((16, 16), np.bool_)
    covered[:, :8] = True
    found = blocks(choose_cells(covered, 64), 16, 4)
    assert (found[:, 2:] == 2).all()
    assert (found[:, :2] == 6).all()


def test_one_positive_pixel_assigns_a_cell_to_the_object() -> None:
    logits = np.zeros((16, 16), np.float32)
    logits[7, 8] = 0.1
    covered = covered_cells(logits)
    assert np.argwhere(covered).tolist() == [[1, 2]]


def test_every_object_has_cells_of_its_own() -> None:
    logits = np.full((2, 16, 16), -1, np.float32)
    logits[0, :4, :8] = 1
    logits[1, 12:, 8:] = 1
    cells = select_cells(logits, Geometry(64, memory_tokens=4))
    assert cells.tolist() == [[0, 1, 2, 10], [0, 10, 14, 15]]
