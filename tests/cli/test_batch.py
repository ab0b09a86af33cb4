"""`sam2-edge batch`: outputs, resuming, and videos that fail."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from tests.helpers.batch import add_line, masks_of, write_list
from tests.helpers.cli import lines_of, run

Batch = Callable[..., int]


@pytest.fixture
def batch(monkeypatch: pytest.MonkeyPatch, bundle: str) -> Batch:
    """Runs the command with one worker; returns the exit code."""

    def call(listed: object, output: object, *options: object) -> int:
        common = ("--bundle", bundle, "--output", output, "--workers", 1, "--threads", 1)
        return run(monkeypatch, "batch", listed, *common, *(options or ("--write", "masks")))

    return call


def test_every_output_is_written_and_recorded(batch: Batch, tmp_path: Path) -> None:
    listed, out = write_list(tmp_path / "clips", 2), tmp_path / "out"
    kinds = ("masks", "jsonl", "coco", "video")
    assert batch(listed, out, *(text for kind in kinds for text in ("--write", kind))) == 0
    assert len(list((out / "v1/masks").iterdir())) == 7
    assert len(lines_of(out / "v1/objects.jsonl")) == 7
    assert (out / "v1/overlay.mp4").stat().st_size > 0
    records = {record["name"]: record for record in lines_of(out / "results.jsonl")}
    assert records.keys() == {"v0", "v1"}
    assert (records["v1"]["status"], records["v1"]["frames"], records["v1"]["objects"]) == (
        "done",
        7,
        1,
    )


def test_coco_files_hold_the_masks_of_the_json_lines(batch: Batch, tmp_path: Path) -> None:
    listed, out = write_list(tmp_path / "clips", 1), tmp_path / "out"
    assert batch(listed, out, "--write", "coco", "--write", "jsonl") == 0
    found, lines = COCO(str(out / "v0/coco.json")), lines_of(out / "v0/objects.jsonl")
    shown = [line for line in lines if line["present"] and line["area"]]
    assert [each["segmentation"] for each in found.anns.values()] == [x["rle"] for x in shown]
    assert all(int(found.annToMask(each).sum()) == each["area"] for each in found.anns.values())
    assert len(found.imgs) == 6


def test_a_second_run_tracks_what_is_missing_only(batch: Batch, tmp_path: Path) -> None:
    listed, out = write_list(tmp_path / "clips", 2), tmp_path / "out"
    assert batch(listed, out) == 0
    expected, kept = masks_of(out), (out / "v0/record.json").stat().st_mtime_ns
    shutil.rmtree(out / "v1")
    assert batch(listed, out) == 0
    assert masks_of(out) == expected
    assert (out / "v0/record.json").stat().st_mtime_ns == kept


def test_a_broken_video_is_recorded_and_tried_again_on_request(
    batch: Batch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed, out = write_list(tmp_path / "clips", 1), tmp_path / "out"
    broken = tmp_path / "clips/broken.mp4"
    broken.write_bytes(b"no video")
    add_line(listed, source="broken.mp4", prompts=[])
    assert batch(listed, out) == 1
    assert "broken" in capsys.readouterr().err
    failed = lines_of(out / "results.jsonl")[1]
    assert failed["status"] == "failed"
    assert "broken.mp4" in failed["error"]

    shutil.copy(tmp_path / "clips/v0.mp4", broken)
    listed.write_text(
        listed.read_text().replace(
            '"prompts": []', '"prompts": [{"frame": 0, "object": 3, "points": [[34, 38]]}]'
        )
    )
    assert batch(listed, out) == 1
    assert batch(listed, out, "--write", "masks", "--retry-failed") == 0
    assert [line["status"] for line in lines_of(out / "results.jsonl")] == ["done", "done"]


def test_a_video_without_prompts_is_recorded_with_where_to_put_them(
    batch: Batch, tmp_path: Path
) -> None:
    write_list(tmp_path / "clips", 1)
    assert batch(tmp_path / "clips", tmp_path / "out") == 1
    (record,) = lines_of(tmp_path / "out/results.jsonl")
    assert record["status"] == "failed"
    assert "v0.mp4 has no prompts; put them beside it in a prompt file v0.json" in record["error"]


def test_an_output_never_mixes_settings(
    batch: Batch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed, out = write_list(tmp_path / "clips", 1), tmp_path / "out"
    assert batch(listed, out) == 0
    assert batch(listed, out, "--write", "coco") == 1
    assert "contains a batch with outputs masks, this one has" in capsys.readouterr().err


def test_a_url_is_read_and_written_like_a_folder(batch: Batch, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    listed, out = write_list(tmp_path / "clips", 1), tmp_path / "out"
    assert batch(listed, out) == 0
    assert batch(f"file://{listed}", f"file://{tmp_path}/remote") == 0
    assert masks_of(tmp_path / "remote") == masks_of(out) != {}
    assert batch(f"file://{listed}", f"file://{tmp_path}/remote") == 0
    assert lines_of(tmp_path / "remote/results.jsonl")[0]["status"] == "done"
