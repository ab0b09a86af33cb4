"""The folder of `sam2-edge eval`: settings never mix, and errors leave no partial result."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_edge import Bundle
from sam2_edge.evaluation.vos.datasets import LayoutName
from sam2_edge.evaluation.vos.results import ObjectRecord, VideoRecord, results_csv
from tests.helpers.cli import run
from tests.helpers.datasets import (
    Eval,
    cut_short,
    file_contents,
    late_clip,
    result_rows,
    write_layout,
)


def test_a_folder_with_other_settings_is_rejected(
    evaluate: Eval,
    layouts: dict[LayoutName, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert evaluate("davis", out, "--videos", "cup") == 0
    before = file_contents(out)
    capsys.readouterr()

    other = {
        "prompt mask, this one has click": evaluate("davis", out, "--prompt", "click"),
        "dataset .*davis, this one has .*mose": evaluate("mose", out),
        "backend auto, this one has cpu": evaluate("davis", out, "--backend", "cpu"),
        "bundle small, this one has sam2-edge-nano": run(
            monkeypatch, "eval", layouts["davis"], "nano", "--output", out
        ),
    }

    assert set(other.values()) == {1}
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    for line, message in zip(lines, other, strict=True):
        assert re.search(message, line)
        assert line.endswith("choose another folder or pass --overwrite")
    assert file_contents(out) == before
    assert evaluate("davis", out, "--videos", "cup", "--prompt", "click", "--overwrite") == 0
    assert result_rows(out).keys() == {("cup", "1")}
    assert file_contents(out / "Annotations") != before


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a broken mask": (
        lambda root: cut_short(root / "Annotations/480p/cup/00002.png"),
        "00002.png cannot be decoded",
    ),
    "a broken frame": (
        lambda root: (root / "JPEGImages/480p/cup/00003.jpg").write_bytes(b"\xff\xd8 broken"),
        "00003.jpg cannot be decoded",
    ),
    "a frame of another size": (
        lambda root: cv2.imwrite(
            str(root / "JPEGImages/480p/cup/00004.jpg"), np.zeros((60, 64, 3), np.uint8)
        ),
        "00004.png is 64 x 64 pixels; give a mask of 64 x 60, the size of its frame",
    ),
    "masks without objects": (
        lambda root: [
            cv2.imwrite(str(p), np.zeros((64, 64), np.uint8))
            for p in (root / "Annotations/480p/cup").iterdir()
        ],
        "the masks of video cup show no object",
    ),
    "a missing mask": (
        lambda root: (root / "Annotations/480p/cup/00005.png").unlink(),
        "00005.jpg has no mask in",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BAD.values(), ids=BAD.keys())
def test_a_damaged_video_gives_one_error_and_no_partial_result(
    damage: Callable[[Path], object],
    message: str,
    evaluate: Eval,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clips = {"zebra": late_clip(3, 4), "cup": late_clip(1, 7)}
    root = write_layout(tmp_path / "data", "davis", clips)
    damage(root)
    assert evaluate(root, tmp_path / "out") == 1
    shown = capsys.readouterr()
    (line,) = [x for x in shown.err.splitlines() if x.startswith("error:")]
    assert message in line
    assert shown.out == ""
    left = [p.name for p in (tmp_path / "out").glob("Annotations/*")]
    assert left in ([], ["zebra"])
    assert not list((tmp_path / "out").glob(".*.part"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["notes.txt"], "is not empty and contains no evaluation; choose another folder"),
        (["settings.json"], "settings.json is not from an evaluation of this sam2_edge"),
    ],
)
def test_a_folder_with_other_files_is_left_alone(
    files: list[str],
    message: str,
    evaluate: Eval,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in files:
        (out / name).write_text("mine")
    assert evaluate("davis", out) == 1
    assert message in capsys.readouterr().err
    assert evaluate("davis", out, "--overwrite") == 1
    assert file_contents(out) == dict.fromkeys(files, b"mine")


def test_results_are_never_written_to_the_data_set(
    evaluate: Eval, layouts: dict[LayoutName, Path]
) -> None:
    before = file_contents(layouts["mose"])
    assert evaluate("mose", layouts["mose"], "--overwrite") == 1
    assert file_contents(layouts["mose"]) == before


def test_a_damaged_record_is_reported(
    evaluate: Eval, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("davis", tmp_path / "out", "--videos", "cup") == 0
    (tmp_path / "out/records/cup.json").write_text("{")
    assert evaluate("davis", tmp_path / "out", "--videos", "cup") == 1
    assert "cup.json is damaged; delete it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [["--layout", "kitti"], ["--prompt", "text"], ["--processes", "0"]]
)
def test_wrong_usage_exits_with_2(options: list[str], evaluate: Eval, tmp_path: Path) -> None:
    assert evaluate("davis", tmp_path / "out", *options) == 2
    assert not (tmp_path / "out").exists()


def test_the_output_is_required(
    monkeypatch: pytest.MonkeyPatch, layouts: dict[LayoutName, Path], small_bundle: Bundle
) -> None:
    assert run(monkeypatch, "eval", layouts["davis"], small_bundle.path) == 2


def test_names_are_not_formulas_in_a_spreadsheet() -> None:
    names = ["=1+2", "+1", "-1", "@SUM(1)", "\t=1", "cup"]
    records = [
        VideoRecord(
            video=name,
            frames=3,
            objects=(ObjectRecord(object=name, prompt=None, prompt_frame=None, score=None),),
        )
        for name in names
    ]
    rows = list(csv.DictReader(io.StringIO(results_csv(records))))
    shown = [f"'{name}" for name in names[:-1]] + ["cup"]
    assert [row["video"] for row in rows] == [row["object"] for row in rows] == shown
