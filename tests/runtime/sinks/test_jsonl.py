"""JSON Lines contain every object and are written immediately."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sam2_edge import FrameResult, ObjectResult, SinkError
from sam2_edge.runtime.results import decode_rle, encode_rle
from sam2_edge.runtime.sinks.jsonl import JsonLines, json_record
from tests.helpers.disk import run_on_full_disk
from tests.helpers.markdown import ROOT, code_blocks
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


GUIDE = ROOT / "docs" / "guides" / "tracking.md"

NODE = shutil.which("node")

DECODE_LINES = """
for (const line of require("fs").readFileSync(0, "utf8").trim().split("\\n"))
  console.log(JSON.stringify([...decodeRle(JSON.parse(line).rle)]));
"""


def snippet(language: str, word: str) -> str:
    """The guide's only code in a language that has a word."""
    (code,) = (block for block in code_blocks(GUIDE, language).values() if word in block)
    return code


@pytest.fixture
def masks() -> list[np.ndarray]:
    """Masks of all kinds: empty, full, of one pixel, noise, and with long and short runs."""
    random = np.random.default_rng(0)
    made = [np.zeros((5, 7)), np.ones((5, 7)), np.eye(1), random.random((37, 23)) > 0.5]
    for size in ((300, 200), (1, 999), (999, 1)):
        mask = np.zeros(size)
        mask[size[0] // 3 :, size[1] // 4 :] = 1
        made += [mask, np.where(random.random(size) < 0.02, 1 - mask, mask)]
    return [mask.astype(np.bool_) for mask in made]


def write_masks(path: Path, masks: list[np.ndarray]) -> None:
    lines = [json.dumps({"rle": encode_rle(mask)}) for mask in masks]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.skipif(NODE is None, reason="needs Node.js")
def test_the_guide_decodes_masks_in_javascript(tmp_path: Path, masks: list[np.ndarray]) -> None:
    write_masks(tmp_path / "o.jsonl", masks)
    code = snippet("js", "decodeRle") + DECODE_LINES
    with (tmp_path / "o.jsonl").open() as lines:
        done = subprocess.run(
            [str(NODE), "-e", code], stdin=lines, capture_output=True, text=True, check=True
        )
    for line, mask in zip(done.stdout.splitlines(), masks, strict=True):
        assert json.loads(line) == coco_mask.decode(encode_rle(mask)).ravel().tolist()
        assert json.loads(line) == mask.ravel().tolist()


def test_the_guide_decodes_masks_in_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masks: list[np.ndarray]
) -> None:
    monkeypatch.chdir(tmp_path)
    for mask in masks:
        write_masks(tmp_path / "results.jsonl", [mask])
        names: dict[str, np.ndarray] = {}
        exec(snippet("python", "pycocotools"), names)
        np.testing.assert_array_equal(names["mask"], mask)


def test_the_guide_explains_every_field() -> None:
    frame, result = tracked_frame(0, unix_s=1.0)
    rows = re.findall(r"^\| (`.*?) \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    explained = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
    assert set(json_record(frame, result, result.objects[0])) <= explained


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
