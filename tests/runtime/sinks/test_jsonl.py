"""JSON Lines contain every object and are written immediately."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sam2_edge import FrameResult, ObjectResult, SinkError
from sam2_edge.runtime.results import decode_rle
from sam2_edge.runtime.sinks.jsonl import JsonLines, json_record
from tests.helpers.disk import run_on_full_disk
from tests.helpers.results import tracked_frame


def test_each_line_describes_an_object(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "o.jsonl")
    sink.write(*tracked_frame(7))
    sink.close()

    first, second = map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines())
    np.testing.assert_array_equal(decode_rle(first.pop("rle")), tracked_frame(7)[1][1].mask)
    assert first == {
        "frame": 7,
        "frame_name": "00007",
        "object": 1,
        "name": "cup",
        "present": True,
        "box": [0, 0, 32, 48],
        "area": 32 * 48,
        "centroid": [15.5, 23.5],
        "iou": 0.75,
        "object_score": 2.0,
        "milliseconds": 4.0,
    }
    assert (second["object"], second["present"], second["name"]) == (2, False, None)
    assert (second["box"], second["area"], second["centroid"]) == (None, 0, None)


def test_lines_are_on_disk_before_the_end(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "o.jsonl")
    sink.write(*tracked_frame(0))
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 2
    sink.close()


def test_dev_null_is_accepted() -> None:
    sink = JsonLines(Path("/dev/null"))
    sink.write(*tracked_frame(0))
    sink.close()


def test_a_full_device_is_an_error() -> None:
    sink = JsonLines(Path("/dev/full"))
    with pytest.raises(SinkError, match="/dev/full cannot be written at frame 0"):
        sink.write(*tracked_frame(0))
    sink.close()


def test_a_full_disk_ends_the_file_with_a_whole_line(tmp_path: Path) -> None:
    code = (
        "sink = JsonLines(folder / 'o.jsonl')\n"
        "try:\n"
        "    for index in range(1000): sink.write(*tracked_frame(index))\n"
        "except SinkError as error: print(error)\n"
        "finally: sink.close()\n"
    )
    message = run_on_full_disk(code, tmp_path)

    lines = (tmp_path / "o.jsonl").read_text().splitlines()
    assert "cannot be written at frame" in message
    assert len(lines) > 10
    assert [json.loads(line)["frame"] for line in lines] == [i // 2 for i in range(len(lines))]


def test_numbers_that_are_not_finite_become_null() -> None:
    odd = ObjectResult(1, np.zeros((4, 4), np.float32), float("nan"), float("inf"), (8, 8))
    record = json_record(tracked_frame(0)[0], FrameResult(0, (odd,), (8, 8), 1.0), odd)
    assert (record["iou"], record["object_score"]) == (None, None)
    json.dumps(record, allow_nan=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_planted_after_the_check_is_not_followed(tmp_path: Path, overwrite: bool) -> None:
    sink = JsonLines(tmp_path / "o.jsonl", overwrite=overwrite)
    (tmp_path / "o.jsonl").symlink_to("victim")
    with pytest.raises(SinkError, match=r"o\.jsonl cannot be written at frame 0"):
        sink.write(*tracked_frame(0))
    assert not (tmp_path / "victim").exists()
