"""`make aarch64`: results of two machines are compared mask by mask and score by score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2_edge.runtime.results import encode_rle
from tools.aarch64 import TOLERANCES, Difference, compare, report


def _record(mask: np.ndarray, **values: Any) -> dict[str, Any]:
    scores = {"present": True, "iou": 0.9, "object_score": 5.0}
    return {"frame": 0, "object": 1, **scores, **values, "rle": encode_rle(mask)}


def _save(folder: Path, *records: dict[str, Any]) -> Path:
    folder.mkdir()
    for file in TOLERANCES:
        (folder / f"{file}.json").write_text("\n".join(map(json.dumps, records)))
    return folder


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((100, 100), bool)
    mask[20:60, 30:50] = True
    return mask


def test_a_difference_counts_pixels_and_the_largest_score(tmp_path: Path, mask: np.ndarray) -> None:
    other = mask.copy()
    other[0, :3] = True
    here = _save(tmp_path / "here", _record(mask))
    there = _save(tmp_path / "there", _record(other, iou=0.89, object_score=5.5))
    (difference,) = compare(here / "frames.json", there / "frames.json")
    assert difference == Difference("frame 0 object 1 present True", 3, 3e-4, 0.5)


def test_an_indented_list_is_compared_as_lines_are(tmp_path: Path, mask: np.ndarray) -> None:
    record = {"object": 1, "rank": 2, "iou": 0.5, "rle": encode_rle(mask)}
    path = tmp_path / "segment.json"
    path.write_text(json.dumps([record], indent=1))
    assert list(compare(path, path)) == [Difference("object 1 rank 2", 0, 0.0, 0.0)]


@pytest.mark.parametrize(
    ("pixels", "scores", "code"),
    [(1, {}, 0), (2, {}, 1), (0, {"iou": 0.9005}, 0), (0, {"object_score": 5.002}, 1)],
)
def test_the_exit_code_tells_whether_all_are_within_the_tolerance(
    tmp_path: Path, mask: np.ndarray, pixels: int, scores: dict[str, float], code: int
) -> None:
    other = mask.copy()
    other[0, :pixels] = True
    here = _save(tmp_path / "here", _record(mask))
    there = _save(tmp_path / "there", _record(other, **scores))
    assert report(here, there) == code


@pytest.mark.parametrize("change", [{"frame": 1}, {"object": 2}, {"present": False}])
def test_results_of_another_frame_or_object_are_refused(
    tmp_path: Path, mask: np.ndarray, change: dict[str, Any]
) -> None:
    here = _save(tmp_path / "here", _record(mask))
    there = _save(tmp_path / "there", _record(mask, **change))
    with pytest.raises(SystemExit, match="there.* has results of other frames"):
        report(here, there)


def test_missing_results_are_refused(tmp_path: Path, mask: np.ndarray) -> None:
    here = _save(tmp_path / "here", _record(mask), _record(mask, frame=1))
    there = _save(tmp_path / "there", _record(mask))
    with pytest.raises(SystemExit, match="there.* has results of other frames"):
        report(here, there)
