"""`sam2-edge eval`: scores as the published evaluations give them, and results that can go on."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
from PIL import Image

from sam2_edge import Bundle
from sam2_edge.evaluation.mask_folders import folder_accuracy, read_indexed_png
from sam2_edge.evaluation.metrics import boundary_accuracy, region_similarity
from sam2_edge.evaluation.vos.datasets import LayoutName
from sam2_edge.evaluation.vos.protocols import FrameScore, score
from sam2_edge.evaluation.vos.synthetic_dataset import write_dataset
from sam2_edge.runtime.sinks.masks import write_indexed_png
from sam2_edge.synthetic import clip
from tests.helpers.cli import SCRIPT, run
from tests.helpers.datasets import LATE, SAV_STEP, late_clip, write_layout

Eval = Callable[..., int]


@pytest.fixture
def evaluate(
    monkeypatch: pytest.MonkeyPatch, small_bundle: Bundle, data: dict[LayoutName, Path]
) -> Eval:
    """The exit code of the command on a layout's data set, or on another folder."""

    def call(dataset: LayoutName | Path, output: Path, *options: object) -> int:
        folder = dataset if isinstance(dataset, Path) else data[dataset]
        common = ["--output", output, "--threads", 1]
        return run(monkeypatch, "eval", folder, small_bundle.path, *common, *options)

    return call


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[LayoutName, Path]:
    """A data set of two videos in each layout; the second object comes on frame `LATE`."""
    root, clips = (
        tmp_path_factory.mktemp("data"),
        {"zebra": late_clip(3, 13), "cup": late_clip(1, 7)},
    )
    return {name: write_layout(root / name, name, clips) for name in get_args(LayoutName)}


def _rows(output: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (output / "results.csv").open() as file:
        return {(row["video"], row["object"]): row for row in csv.DictReader(file)}


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Which frames count, and what follows from them. The case by hand: the truth is 4 x 4 pixels in a
# picture of 12 x 12, and the prediction is 0, 1, 2 or 3 columns to the right of it.
#
# J. Columns shared and covered: 4 of 4, 3 of 5, 2 of 6, 1 of 7.
# F. The tolerance is 0.008 of the diagonal of 17 pixels, rounded up: 1 pixel. A boundary has 16
#    pixels, the edge of a square of 5 x 5; matched are, in both directions alike:
#      0 and 1 columns off: all 16.
#      2 columns off: of rows 3 and 7 the four right-most columns each (4 + 4), and the last column
#        only where it is next to these rows (2): 10.
#      3 columns off: three right-most columns of these rows (3 + 3), and the last column, which is
#        next to the other's first one (3): 9.
J = (1, 3 / 5, 2 / 6, 1 / 7)
F = (1, 1, 10 / 16, 9 / 16)


def _square(left: int) -> np.ndarray:
    mask = np.zeros((12, 12), np.bool_)
    mask[4:8, left : left + 4] = True
    return mask


def _frame(number: int, shift: int, *, prompted: bool = False) -> FrameScore:
    ours, truth = _square(2 + shift), _square(2)
    return FrameScore(
        number,
        region_similarity(ours, truth),
        boundary_accuracy(ours, truth),
        shown=True,
        truth=True,
        prompted=prompted,
    )


def _absent(number: int) -> FrameScore:
    return FrameScore(number, 1.0, 1.0, shown=False, truth=False)


def test_davis_by_hand() -> None:
    # Six frames, of which the first and the last do not count: the four cases remain.
    frames = [_frame(i, shift) for i, shift in enumerate((3, 0, 1, 2, 3, 0))]
    found = score(frames, "davis")
    assert found.frames == 4
    assert asdict(found.j) == pytest.approx(
        # Recall: the first two are above 0.5. Decay: of four frames, the first two against the
        # last two.
        {"mean": sum(J) / 4, "recall": 2 / 4, "decay": (J[0] + J[1]) / 2 - (J[2] + J[3]) / 2}
    )
    assert asdict(found.f) == pytest.approx(
        {"mean": sum(F) / 4, "recall": 1, "decay": 1 - (F[2] + F[3]) / 2}
    )
    assert score(frames, "mose") == found


def test_sa_v_by_hand() -> None:
    # As DAVIS, over the object's own files. What neither truth nor prediction has shown yet does
    # not count, what is rightly empty later does.
    frames = [_frame(0, 0), _absent(4), _frame(8, 1), _absent(12), _frame(16, 3), _frame(20, 0)]
    found = score(frames, "sa-v")
    assert found.frames == 3
    assert found.j.mean == pytest.approx((J[1] + 1 + J[3]) / 3)
    assert found.f.mean == pytest.approx((F[1] + 1 + F[3]) / 3)
    assert score(frames[:2], "sa-v") is None


@pytest.mark.parametrize("layout", ["davis", "mose", "sa-v", "lvos"])
def test_frames_without_the_object_by_hand(layout: LayoutName) -> None:
    # The object is gone on two frames between the ends. Where nothing is predicted, that is right;
    # a mask there, of whatever size, shares nothing with the truth, in its boundary neither.
    nothing, mask = np.zeros((12, 12), np.bool_), _square(2)
    frames = [_frame(1, 0)]
    for number, ours in ((6, nothing), (11, mask)):
        j, f = region_similarity(ours, nothing), boundary_accuracy(ours, nothing)
        frames.append(FrameScore(number, j, f, shown=bool(ours.any()), truth=False))
    frames += [_frame(16, 2), _frame(21, 0)]
    if layout == "sa-v":  # it does not count what nobody has shown so far
        frames.insert(1, _frame(5, 1))
    first = [(J[1], F[1])] if layout == "sa-v" else []
    counted = [*first, (1, 1), (0, 0), (J[2], F[2])]

    found = score(frames, layout)

    assert found.frames == len(counted)
    assert found.j.mean == pytest.approx(np.mean([j for j, _ in counted]))
    assert found.f.mean == pytest.approx(np.mean([f for _, f in counted]))


def test_lvos_by_hand() -> None:
    # From frame 11 to frame 31 without these two; where no range is given, from the first to the
    # last frame that truly shows the object, which frame 36 does not.
    frames = [_absent(1), _absent(6), _frame(11, 3), _frame(16, 1), _frame(21, 2), _absent(26)]
    frames += [_frame(31, 3), _absent(36)]
    frames.insert(4, _frame(17, 3))  # its number is not a multiple of 5 after the first
    found = score(frames, "lvos", (11, 31))
    assert found.frames == 3
    assert found.j.mean == pytest.approx((J[1] + J[2] + 1) / 3)
    assert found.f.mean == pytest.approx((F[1] + F[2] + 1) / 3)
    assert score(frames, "lvos") == found
    assert score(frames, "lvos", (11, 21)).j.mean == pytest.approx(J[1])


def test_youtube_vos_by_hand() -> None:
    # Every frame after the prompt's.
    frames = [_absent(0), _frame(5, 0, prompted=True), _frame(10, 2), _frame(15, 3)]
    found = score(frames, "youtube-vos")
    assert found.frames == 2
    assert found.j.mean == pytest.approx((J[2] + J[3]) / 2)
    assert found.f.mean == pytest.approx((F[2] + F[3]) / 2)


def test_an_object_that_comes_late_is_right_to_be_absent_before() -> None:
    frames = [_absent(0), _absent(1), _frame(2, 2), _frame(3, 0)]
    assert score(frames, "mose").j.mean == pytest.approx((1 + J[2]) / 2)


# The command.

COUNTED: dict[LayoutName, dict[tuple[str, str], int]] = {
    # Objects of the first mask; all frames but the first and the last.
    "davis": {("cup", "1"): 5, ("zebra", "1"): 11},
    # Frames 0, 4, 8, 12 and 0, 4 have masks: without the ends 4, 8 and none. Frame 4 does not show
    # the second zebra yet.
    "sa-v": {("cup", "000"): 0, ("cup", "001"): 0, ("zebra", "000"): 2, ("zebra", "001"): 1},
    # The first masks only, so no truth.
    "mose": {("cup", "1"): 0, ("zebra", "1"): 0},
    # Object 1 to two frames before the end, object 2 from `LATE` on, each without its ends.
    "lvos": {("cup", "1"): 3, ("cup", "2"): 3, ("zebra", "1"): 9, ("zebra", "2"): 9},
    "youtube-vos": dict.fromkeys([("cup", "1"), ("cup", "2"), ("zebra", "1"), ("zebra", "2")], 0),
}


@pytest.mark.parametrize("layout", get_args(LayoutName))
def test_a_data_set_of_every_layout_is_evaluated(
    layout: LayoutName,
    evaluate: Eval,
    data: dict[LayoutName, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(layout, tmp_path / "out") == 0

    rows = _rows(tmp_path / "out")
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
    names = {p.stem for p in data[layout].rglob("cup/*.jpg")}
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
def test_an_object_that_comes_late_is_in_no_mask_before(
    layout: LayoutName, evaluate: Eval, tmp_path: Path
) -> None:
    assert evaluate(layout, tmp_path / "out", "--videos", "cup") == 0
    files = sorted((tmp_path / "out/Annotations/cup").iterdir())
    seen = [2 in np.unique(read_indexed_png(path)) for path in files]
    assert seen[: LATE + 1] == [False] * LATE + [True]
    (record,) = (tmp_path / "out/records").iterdir()
    objects = json.loads(record.read_text())["objects"]
    assert [o["prompt_frame"] for o in objects] == [files[0].stem, files[LATE].stem]


def test_masks_are_files_of_davis(evaluate: Eval, tmp_path: Path) -> None:
    assert evaluate("davis", tmp_path / "out", "--videos", "cup") == 0
    with Image.open(tmp_path / "out/Annotations/cup/00006.png") as image:
        assert image.mode == "P"
        assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
        assert image.size == (64, 64)


def test_scores_are_those_of_the_files(evaluate: Eval, tmp_path: Path) -> None:
    drawn = clip(11, frames=6, size=64, objects=3, split="heldout", photographs=False)
    write_dataset(tmp_path / "data", [drawn])
    assert evaluate(tmp_path / "data", tmp_path / "out") == 0
    wanted = folder_accuracy(
        tmp_path / "out/Annotations/00000", tmp_path / "data/Annotations/00000"
    )
    rows = _rows(tmp_path / "out")
    assert rows.keys() == {("00000", str(i)) for i in wanted} == {("00000", i) for i in "123"}
    for object_id, accuracy in wanted.items():
        row = rows["00000", str(object_id)]
        assert float(row["J"]) == pytest.approx(accuracy.j, abs=1e-6)
        assert float(row["F"]) == pytest.approx(accuracy.f, abs=1e-6)
    assert 0 < min(float(row["J&F"]) for row in rows.values()) < 1


def test_masks_of_sa_v_may_overlap_and_are_scored_one_by_one(
    evaluate: Eval, tmp_path: Path
) -> None:
    drawn = clip(2, frames=13, size=64, objects=2, split="heldout", photographs=False)
    truth = write_layout(tmp_path / "data", "sa-v", {"dog": drawn}) / "Annotations_6fps/dog"
    both = (drawn.masks[0] > 0).astype(np.uint8)  # the second object holds the first
    write_indexed_png(truth / "001/00000.png", both)

    assert evaluate(tmp_path / "data", tmp_path / "out") == 0

    ours, rows, masks = tmp_path / "out/Annotations/dog", _rows(tmp_path / "out"), {}
    for name in ("000", "001"):
        masks[name] = [read_indexed_png(p) for p in sorted((ours / name).iterdir())]
        assert {int(i) for mask in masks[name] for i in np.unique(mask)} == {0, 1}
        wanted = [
            region_similarity(masks[name][t], read_indexed_png(truth / name / f"{t:05d}.png"))
            for t in (SAV_STEP, 2 * SAV_STEP)
        ]
        assert float(rows["dog", name]["J"]) == pytest.approx(np.mean(wanted), abs=1e-6)
    assert (masks["000"][0] & masks["001"][0]).sum() > 0.9 * masks["000"][0].sum() > 0


def test_a_short_clip_is_tracked_as_one(
    monkeypatch: pytest.MonkeyPatch, evaluate: Eval, small_bundle: Bundle, tmp_path: Path
) -> None:
    """The same masks as `track` gives, after a longer clip; ages of pointers hang on the length."""
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
    assert _tree(tmp_path / "out/Annotations/b") == _tree(tmp_path / "tracked")


@pytest.mark.parametrize("prompt", ["mask", "click", "box"])
def test_objects_are_prompted_as_asked(prompt: str, evaluate: Eval, tmp_path: Path) -> None:
    assert evaluate("lvos", tmp_path / "out", "--prompt", prompt, "--videos", "cup") == 0
    record = json.loads((tmp_path / "out/records/cup.json").read_text())
    assert [found["prompt"] for found in record["objects"]] == [prompt] * 2
    assert json.loads((tmp_path / "out/summary.json").read_text())["prompt"] == prompt


def test_prompts_make_a_difference(evaluate: Eval, tmp_path: Path) -> None:
    for prompt in ("mask", "click", "box"):
        assert evaluate("davis", tmp_path / prompt, "--prompt", prompt, "--videos", "cup") == 0
    trees = [_tree(tmp_path / prompt / "Annotations") for prompt in ("mask", "click", "box")]
    assert trees[0] != trees[1] != trees[2] != trees[0]


def test_a_mask_too_small_for_the_model_is_clicked_on(
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
    assert "1 objects were prompted by a click" in capsys.readouterr().err


# Going on after an interruption.


def test_what_is_done_is_not_done_again(
    evaluate: Eval, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert evaluate("lvos", out) == 0
    whole = _tree(out)
    (out / "records/zebra.json").unlink()  # as if it had been killed just before
    (out / "Annotations/zebra/00000001.png").unlink()
    (out / ".cup.left.part").mkdir()
    kept = (out / "Annotations/cup/00000001.png").stat()
    capsys.readouterr()

    assert evaluate("lvos", out) == 0

    assert "1 of 2 videos are done already" in capsys.readouterr().err
    assert _tree(out) == whole
    after = (out / "Annotations/cup/00000001.png").stat()
    assert (after.st_ino, after.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)
    assert not (out / ".cup.left.part").exists()


def test_masks_that_were_deleted_are_made_again(evaluate: Eval, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert evaluate("davis", out) == 0
    whole = _tree(out)
    shutil.rmtree(out / "Annotations/cup")
    assert evaluate("davis", out) == 0
    assert _tree(out) == whole


@pytest.fixture(scope="module")
def long_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short videos, and two that take seconds."""
    root = tmp_path_factory.mktemp("long")
    short = clip(1, frames=4, size=64, objects=1, split="heldout", photographs=False)
    write_dataset(root, [short, short])
    for kind in ("JPEGImages", "Annotations"):
        for name in ("00002", "00003"):
            shutil.copytree(root / kind / "00000", root / kind / name)
            suffix = "jpg" if kind == "JPEGImages" else "png"
            for i in range(4, 800):
                (root / kind / name / f"{i:05d}.{suffix}").hardlink_to(
                    root / kind / "00000" / f"00003.{suffix}"
                )
    return root


@pytest.mark.parametrize(
    ("stop", "processes"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGKILL, 2)]
)
def test_an_interrupted_evaluation_keeps_what_is_done(
    stop: signal.Signals, processes: int, long_data: Path, small_bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ["--output", out, "--threads", "1", "--processes", str(processes)]
    command = [SCRIPT, "eval", long_data, small_bundle.path, *options]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests run in the background of a script, SIGINT is ignored and passed on so.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    records = [out / f"records/{name}.json" for name in ("00000", "00001")]
    end = time.monotonic() + 60
    while not all(path.is_file() for path in records) and time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    if stop == signal.SIGINT:
        os.killpg(process.pid, stop)  # a terminal's Ctrl-C goes to every process
    else:
        process.kill()
    # Ends when the last process has closed the pipe: none is left behind.
    _, shown = process.communicate(timeout=30)

    assert sorted(p.name for p in (out / "Annotations").iterdir()) == ["00000", "00001"]
    assert not (out / "results.csv").exists()
    if stop == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted; what was written is kept" in shown
        assert "Traceback" not in shown
        assert not list(out.glob(".*.part"))
    short = [*command, "--videos", "00000", "--videos", "00001"]
    again = subprocess.run(short, capture_output=True, text=True, check=True)
    assert "2 of 2 videos are done already" in again.stderr
    assert len(_rows(out)) == 2
    assert not list(out.glob(".*.part"))


def test_processes_give_the_same_results(evaluate: Eval, tmp_path: Path) -> None:
    assert evaluate("lvos", tmp_path / "one") == 0
    assert evaluate("lvos", tmp_path / "two", "--processes", 2) == 0
    assert _tree(tmp_path / "one") == _tree(tmp_path / "two")


def test_other_settings_are_refused(
    evaluate: Eval,
    data: dict[LayoutName, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert evaluate("davis", out, "--videos", "cup") == 0
    before = _tree(out)
    capsys.readouterr()

    other = {
        "prompt mask, this one has click": evaluate("davis", out, "--prompt", "click"),
        "dataset .*davis, this one has .*mose": evaluate("mose", out),
        "backend auto, this one has cpu": evaluate("davis", out, "--backend", "cpu"),
        "bundle small, this one has sam2-edge-nano": run(
            monkeypatch, "eval", data["davis"], "nano", "--output", out
        ),
    }

    assert set(other.values()) == {1}
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    for line, message in zip(lines, other, strict=True):
        assert re.search(message, line)
        assert line.endswith("choose another folder or pass --overwrite")
    assert _tree(out) == before
    assert evaluate("davis", out, "--videos", "cup", "--prompt", "click", "--overwrite") == 0
    assert _rows(out).keys() == {("cup", "1")}
    assert _tree(out / "Annotations") != before


# What cannot be evaluated.


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a broken mask": (
        lambda root: _cut(root / "Annotations/480p/cup/00002.png"),
        "00002.png cannot be read",
    ),
    "a broken frame": (
        lambda root: (root / "JPEGImages/480p/cup/00003.jpg").write_bytes(b"\xff\xd8 broken"),
        "00003.jpg cannot be decoded",
    ),
    "a frame of another size": (
        lambda root: cv2.imwrite(
            str(root / "JPEGImages/480p/cup/00004.jpg"), np.zeros((60, 64, 3), np.uint8)
        ),
        "00004.jpg is 64 x 60 pixels, the mask of object 1 is 64 x 64",
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
def test_a_damaged_video_is_one_error_and_no_half_result(
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


def test_an_error_in_a_process_is_the_same_error(
    evaluate: Eval, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = {"zebra": late_clip(3, 4), "cup": late_clip(1, 7)}
    root = write_layout(tmp_path / "data", "davis", clips)
    _cut(root / "Annotations/480p/cup/00002.png")
    assert evaluate(root, tmp_path / "out", "--processes", 2) == 1
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    assert len(lines) == 1
    assert "00002.png cannot be read" in lines[0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["notes.txt"], "is not empty and holds no evaluation; choose another folder"),
        (["settings.json"], "settings.json is not of an evaluation of this sam2_edge"),
    ],
)
def test_a_folder_of_something_else_is_left_alone(
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
    assert _tree(out) == dict.fromkeys(files, b"mine")


def test_results_are_never_written_into_the_data_set(
    evaluate: Eval, data: dict[LayoutName, Path]
) -> None:
    before = _tree(data["mose"])
    assert evaluate("mose", data["mose"], "--overwrite") == 1
    assert _tree(data["mose"]) == before


def test_a_damaged_record_is_one_error(
    evaluate: Eval, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("davis", tmp_path / "out", "--videos", "cup") == 0
    (tmp_path / "out/records/cup.json").write_text("{")
    assert evaluate("davis", tmp_path / "out", "--videos", "cup") == 1
    assert "cup.json is damaged; delete it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [["--layout", "kitti"], ["--prompt", "text"], ["--processes", "0"]]
)
def test_wrong_usage_is_exit_code_2(options: list[str], evaluate: Eval, tmp_path: Path) -> None:
    assert evaluate("davis", tmp_path / "out", *options) == 2
    assert not (tmp_path / "out").exists()


def test_the_output_must_be_named(
    monkeypatch: pytest.MonkeyPatch, data: dict[LayoutName, Path], small_bundle: Bundle
) -> None:
    assert run(monkeypatch, "eval", data["davis"], small_bundle.path) == 2
