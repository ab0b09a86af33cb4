"""`sam2-edge eval` on every layout: masks, scores and prompts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
from PIL import Image

from sam2_edge import Bundle
from sam2_edge.evaluation.mask_folders import folder_accuracy
from sam2_edge.evaluation.metrics import region_similarity
from sam2_edge.evaluation.vos.datasets import LayoutName
from sam2_edge.runtime.sinks.masks import write_indexed_png
from sam2_edge.runtime.sources.mask_file import read_id_mask
from sam2_edge.synthetic import clip
from sam2_edge.synthetic.dataset import write_dataset
from tests.helpers.cli import run
from tests.helpers.datasets import LATE, SAV_STEP, Eval, file_contents, result_rows, write_layout

COUNTED: dict[LayoutName, dict[tuple[str, str], int]] = {
    # Objects of the first mask; all frames except the first and the last.
    "davis": {("cup", "1"): 5, ("zebra", "1"): 11},
    # Frames 0, 4, 8, 12 and 0, 4 have masks; without the ends, 4, 8 and none. Frame 4 does not
    # show the second zebra yet.
    "sa-v": {("cup", "000"): 0, ("cup", "001"): 0, ("zebra", "000"): 2, ("zebra", "001"): 1},
    # Only the first masks, so there is no truth.
    "mose": {("cup", "1"): 0, ("zebra", "1"): 0},
    # Object 1 until two frames before the end, object 2 from `LATE` on; each without its ends.
    "lvos": {("cup", "1"): 3, ("cup", "2"): 3, ("zebra", "1"): 9, ("zebra", "2"): 9},
    "youtube-vos": dict.fromkeys([("cup", "1"), ("cup", "2"), ("zebra", "1"), ("zebra", "2")], 0),
}


@pytest.mark.parametrize("layout", get_args(LayoutName))
def test_every_layout_is_evaluated(
    layout: LayoutName,
    evaluate: Eval,
    layouts: dict[LayoutName, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(layout, tmp_path / "out") == 0

    rows = result_rows(tmp_path / "out")
    counted = COUNTED[layout]
    assert {key: int(row["frames"]) for key, row in rows.items()} == counted
    figures = json.loads((tmp_path / "out/summary.json").read_text())
    scored = [row for key, row in rows.items() if counted[key]]
    assert all(
        row["J"] == row["F"] == row["J&F"] == "" for row in rows.values() if row not in scored
    )
    assert (figures["objects"], figures["scored_objects"]) == (len(rows), len(scored))
    shown = capsys.readouterr()
    if scored:
        for column, key in (("J", "j"), ("F", "f"), ("J&F", "j_and_f")):
            mean = np.mean([float(row[column]) for row in scored])
            assert figures[key] == pytest.approx(mean, abs=1e-5)
        assert f"{figures['j_and_f']:.3f}" in shown.out
    else:
        assert figures["j_and_f"] is figures["f_decay"] is None
        assert f"{len(rows)} of {len(rows)} objects have no score" in shown.err.replace("\n", " ")
    names = {p.stem for p in layouts[layout].rglob("cup/*.jpg")}
    folders = ["cup/000", "cup/001"] if layout == "sa-v" else ["cup"]
    for folder in folders:
        assert {p.stem for p in (tmp_path / "out/Annotations" / folder).iterdir()} == names
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "Annotations",
        "records",
        "results.csv",
        "settings.json",
        "summary.json",
    }


@pytest.mark.parametrize("layout", ["lvos", "youtube-vos"])
def test_an_object_that_appears_late_is_in_no_earlier_mask(
    layout: LayoutName, evaluate: Eval, tmp_path: Path
) -> None:
    assert evaluate(layout, tmp_path / "out", "--videos", "cup") == 0
    files = sorted((tmp_path / "out/Annotations/cup").iterdir())
    seen = [2 in np.unique(read_id_mask(path)) for path in files]
    assert seen[: LATE + 1] == [False] * LATE + [True]
    (record,) = (tmp_path / "out/records").iterdir()
    objects = json.loads(record.read_text())["objects"]
    assert [o["prompt_frame"] for o in objects] == [files[0].stem, files[LATE].stem]


def test_masks_have_the_format_of_davis(evaluate: Eval, tmp_path: Path) -> None:
    assert evaluate("davis", tmp_path / "out", "--videos", "cup") == 0
    with Image.open(tmp_path / "out/Annotations/cup/00006.png") as image:
        assert image.mode == "P"
        assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
        assert image.size == (64, 64)


def test_scores_equal_those_of_the_written_masks(evaluate: Eval, tmp_path: Path) -> None:
    drawn = clip(11, frames=6, size=64, objects=3, split="heldout", photographs=False)
    write_dataset(tmp_path / "data", [drawn])
    assert evaluate(tmp_path / "data", tmp_path / "out") == 0
    wanted = folder_accuracy(
        tmp_path / "out/Annotations/00000", tmp_path / "data/Annotations/00000"
    )
    rows = result_rows(tmp_path / "out")
    assert rows.keys() == {("00000", str(i)) for i in wanted} == {("00000", i) for i in "123"}
    for object_id, accuracy in wanted.items():
        row = rows["00000", str(object_id)]
        assert float(row["J"]) == pytest.approx(accuracy.j, abs=1e-6)
        assert float(row["F"]) == pytest.approx(accuracy.f, abs=1e-6)
    assert 0 < min(float(row["J&F"]) for row in rows.values()) < 1


def test_masks_of_sa_v_may_overlap_and_are_scored_separately(
    evaluate: Eval, tmp_path: Path
) -> None:
    drawn = clip(2, frames=13, size=64, objects=2, split="heldout", photographs=False)
    truth = write_layout(tmp_path / "data", "sa-v", {"dog": drawn}) / "Annotations_6fps/dog"
    both = (drawn.masks[0] > 0).astype(np.uint8)  # the second object holds the first
    write_indexed_png(truth / "001/00000.png", both)

    assert evaluate(tmp_path / "data", tmp_path / "out") == 0

    ours, rows, masks = tmp_path / "out/Annotations/dog", result_rows(tmp_path / "out"), {}
    for name in ("000", "001"):
        masks[name] = [read_id_mask(p) for p in sorted((ours / name).iterdir())]
        assert {int(i) for mask in masks[name] for i in np.unique(mask)} == {0, 1}
        wanted = [
            region_similarity(masks[name][t], read_id_mask(truth / name / f"{t:05d}.png"))
            for t in (SAV_STEP, 2 * SAV_STEP)
        ]
        assert float(rows["dog", name]["J"]) == pytest.approx(np.mean(wanted), abs=1e-6)
    assert (masks["000"][0] & masks["001"][0]).sum() > 0.9 * masks["000"][0].sum() > 0


def test_a_short_clip_is_tracked_with_its_own_length(
    monkeypatch: pytest.MonkeyPatch, evaluate: Eval, small_bundle: Bundle, tmp_path: Path
) -> None:
    """Pointer ages depend on the length: even after a longer clip, masks equal those of `track`."""
    for name, frames in (("a", 12), ("b", 5)):
        drawn = clip(1, frames=frames, size=64, objects=1, split="heldout", photographs=False)
        write_dataset(tmp_path / name, [drawn])
        for kind in ("JPEGImages", "Annotations"):
            target = tmp_path / "data" / kind
            target.mkdir(parents=True, exist_ok=True)
            shutil.move(tmp_path / name / kind / "00000", target / name)
    assert evaluate(tmp_path / "data", tmp_path / "out") == 0

    frames, first = tmp_path / "data/JPEGImages/b", tmp_path / "data/Annotations/b/00000.png"
    options = ["--bundle", small_bundle.path, "--mask", first, "--masks", tmp_path / "tracked"]
    assert run(monkeypatch, "track", frames, *options, "--threads", 1) == 0
    assert file_contents(tmp_path / "out/Annotations/b") == file_contents(tmp_path / "tracked")


@pytest.mark.parametrize("prompt", ["mask", "click", "box"])
def test_objects_get_the_requested_prompt(prompt: str, evaluate: Eval, tmp_path: Path) -> None:
    assert evaluate("lvos", tmp_path / "out", "--prompt", prompt, "--videos", "cup") == 0
    record = json.loads((tmp_path / "out/records/cup.json").read_text())
    assert [found["prompt"] for found in record["objects"]] == [prompt] * 2
    assert json.loads((tmp_path / "out/summary.json").read_text())["prompt"] == prompt


def test_masks_depend_on_the_prompt(evaluate: Eval, tmp_path: Path) -> None:
    for prompt in ("mask", "click", "box"):
        assert evaluate("davis", tmp_path / prompt, "--prompt", prompt, "--videos", "cup") == 0
    trees = [
        file_contents(tmp_path / prompt / "Annotations") for prompt in ("mask", "click", "box")
    ]
    assert trees[0] != trees[1] != trees[2] != trees[0]


def test_a_mask_too_small_for_the_model_is_replaced_by_a_click(
    evaluate: Eval, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames, masks = tmp_path / "data/JPEGImages/dot", tmp_path / "data/Annotations/dot"
    for folder in (frames, masks):
        folder.mkdir(parents=True)
    picture = np.zeros((512, 512, 3), np.uint8)
    picture[100, 200] = 255
    cv2.imwrite(str(frames / "00000.jpg"), picture)
    cv2.imwrite(str(masks / "00000.png"), (picture[..., 0] > 0).astype(np.uint8))
    assert evaluate(tmp_path / "data", tmp_path / "out") == 0
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["clicked_instead"] == ["dot/1"]
    assert "1 objects were prompted with a click" in capsys.readouterr().err
