"""The commands as a user types them."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sam2_edge import Bundle
from sam2_edge.runtime.sources.video import open_source
from tests.helpers.cli import SCRIPT, lines_of, run, video
from tests.helpers.clips import Clip


@pytest.fixture
def bundle(small_bundle: Bundle) -> str:
    return str(small_bundle.path)


def test_track_writes_masks_lines_and_video(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    outputs = [tmp_path / "o.mp4", tmp_path / "masks", tmp_path / "o.jsonl"]
    options = ["--video", outputs[0], "--masks", outputs[1], "--jsonl", outputs[2]]
    prompts = ["--object", 4, "--point", "34,38", "--point", "90,90,0"]
    more = ["--object", 9, "--box", "70,70,120,120"]

    code = run(monkeypatch, "track", clip_folder, "--bundle", bundle, *prompts, *more, *options)

    lines = [json.loads(line) for line in outputs[2].read_text().splitlines()]
    assert code == 0
    assert [(r["frame"], r["object"]) for r in lines] == [(f, o) for f in range(6) for o in (4, 9)]
    assert sorted(p.name for p in outputs[1].iterdir()) == [f"{i}.png" for i in range(6)]
    values = set(np.unique(np.asarray(Image.open(outputs[1] / "0.png"))))
    assert values <= {0, 4, 9}
    assert len(values) > 1
    assert cv2.VideoCapture(str(outputs[0])).get(cv2.CAP_PROP_FRAME_COUNT) == 6


def test_track_follows_a_video_from_the_middle(
    monkeypatch: pytest.MonkeyPatch, bundle: str, tmp_path: Path
) -> None:
    source = video(tmp_path / "in.avi")
    options = ["--frames", "3:7", "--video", tmp_path / "o.mp4", "--jsonl", tmp_path / "o.jsonl"]

    assert run(monkeypatch, "track", source, "--bundle", bundle, *GOOD, *options) == 0

    lines = lines_of(tmp_path / "o.jsonl")
    assert [(r["frame"], r["name"]) for r in lines] == [(i, f"{i:05d}") for i in range(3, 7)]
    written = open_source(tmp_path / "o.mp4")
    assert (written.frames, written.fps) == (4, 12)


def test_outputs_are_replaced_on_demand(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    lines, masks = tmp_path / "o.jsonl", tmp_path / "masks"
    command = ["track", clip_folder, "--bundle", bundle, "--jsonl", lines, "--masks", masks]
    assert run(monkeypatch, *command, "--frames", "0:3", *GOOD) == 0
    assert run(monkeypatch, *command, "--frames", "0:2", *GOOD) == 1
    assert len(lines_of(lines)) == 3
    assert run(monkeypatch, *command, "--frames", "0:2", *GOOD, "--overwrite") == 0
    assert len(lines_of(lines)) == 2


def test_a_result_is_never_written_over_its_source(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    source, image = video(tmp_path / "in.avi"), clip_folder / "0.png"
    before = {p: p.read_bytes() for p in (source, *clip_folder.iterdir())}
    common = ["--bundle", bundle, *GOOD, "--overwrite"]

    codes = [
        run(monkeypatch, "track", source, *common, "--video", source),
        run(monkeypatch, "track", clip_folder, *common, "--masks", clip_folder),
        run(monkeypatch, "segment", image, *common, "--overlay", image),
    ]

    assert codes == [1, 1, 1]
    assert {p: p.read_bytes() for p in before} == before


def test_two_results_do_not_share_a_file(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    common = ["--bundle", bundle, *GOOD]
    both = tmp_path / "o.mp4"
    code = run(monkeypatch, "track", clip_folder, *common, "--video", both, "--jsonl", both)
    assert code in (1, 2)
    assert not both.exists()


def test_a_prompt_that_is_refused_leaves_no_outputs(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    options = ["--masks", out / "m", "--jsonl", out / "o.jsonl", "--video", out / "o.mp4"]
    command = ["track", clip_folder, "--bundle", bundle, *options]
    assert run(monkeypatch, *command, "--point", "128,5") == 1
    assert list(out.iterdir()) == []
    assert run(monkeypatch, *command, *GOOD, "--frames", "0:1") == 0  # without --overwrite


def test_prompts_belong_to_the_object_before_them(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    def lines(name: str, *prompts: str) -> list[object]:
        path = tmp_path / name
        common = ["track", clip_folder, "--bundle", bundle, "--frames", "0:1", "--jsonl", path]
        assert run(monkeypatch, *common, *prompts) == 0
        records = [json.loads(line) for line in path.read_text().splitlines()]
        return sorted((r["object"], r["rle"]["counts"]) for r in records)

    a, b = "34,38", "92,75"
    first = lines("1", "--object", "1", "--point", a, "--object", "2", "--point", b)
    swapped = lines("2", "--object", "2", "--point", b, "--object", "1", "--point", a)
    other = lines("3", "--object", "1", "--point", b, "--object", "2", "--point", a)
    single = lines("4", "--point", a)
    assert first == swapped != other
    assert single == [first[0]]
    assert lines("5", "--point", a, "--object", "1") == [first[0]]
    assert lines("6", "--point", b, "--object", "2") == [first[1]]


def test_a_prompts_file_and_a_range_use_the_numbers_of_the_source(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    entries = [{"frame": 3, "object": 2, "points": [[34, 38]]}]
    (tmp_path / "p.json").write_text(json.dumps(entries))
    options = ["--prompts", tmp_path / "p.json", "--frames", "2:5", "--jsonl", tmp_path / "o"]

    assert run(monkeypatch, "track", clip_folder, "--bundle", bundle, *options) == 0

    lines = [json.loads(line) for line in (tmp_path / "o").read_text().splitlines()]
    assert [(r["frame"], r["object"]) for r in lines] == [(3, 2), (4, 2)]


def test_a_mask_file_prompts(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip: Clip, clip_folder: Path, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "disc.png"), (clip.masks[0] == 1).astype(np.uint8) * 255)
    options = ["--mask", tmp_path / "disc.png", "--masks", tmp_path / "out", "--frames", "0:1"]

    assert run(monkeypatch, "track", clip_folder, "--bundle", bundle, *options) == 0

    got = np.asarray(Image.open(tmp_path / "out" / "0.png")) == 1
    disc = clip.masks[0] == 1
    assert (got & disc).sum() / (got | disc).sum() > 0.9


def test_segment_writes_masks_overlay_and_json(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    options = ["--masks", tmp_path / "m", "--overlay", tmp_path / "o.png", "--json", tmp_path / "j"]
    command = ["segment", clip_folder / "0.png", "--bundle", bundle, "--point", "34,38"]

    assert run(monkeypatch, *command, *options, "--multimask") == 0

    records = json.loads((tmp_path / "j").read_text())
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["1_0.png", "1_1.png", "1_2.png"]
    assert cv2.imread(str(tmp_path / "o.png")).shape == (128, 128, 3)
    assert [r["rank"] for r in records] == [0, 1, 2]
    mask = cv2.imread(str(tmp_path / "m" / "1_0.png"), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(mask)) <= {0, 255}


def test_inspect_prints_the_bundle(bundle: str) -> None:
    shown = subprocess.run([SCRIPT, "inspect", bundle], capture_output=True, text=True, check=True)
    assert "128 x 128 pixels" in shown.stdout
    assert "M x B x 64 x 8 x 8" in shown.stdout
    as_json = subprocess.run([SCRIPT, "inspect", "--json", bundle], capture_output=True, check=True)
    assert json.loads(as_json.stdout)["memory"]["rounding"] == "bfloat16"


def test_doctor_says_what_there_is_and_what_to_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "doctor") == 0
    shown = capsys.readouterr().out
    for name in ("GPU", "tensorrt-rtx", "JetPack", "onnxruntime", "GStreamer in OpenCV"):
        assert re.search(rf"^{name} +\S", shown, re.MULTILINE), name
    assert re.search(r"^Best here: (cpu|cuda|tensorrt)", shown, re.MULTILINE)


def test_inspect_prints_names_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bundle: str,
    tmp_path: Path,
) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["model"]["source"] = "runs[old]/[/x].pt"  # rich's markup, to rich
    (copy / "manifest.json").write_text(json.dumps(manifest))

    assert run(monkeypatch, "inspect", copy) == 0

    assert "runs[old]/[/x].pt" in capsys.readouterr().out


GOOD = ["--point", "34,38"]


BAD_INPUT = {
    "no bundle": (["track", "{clip}", "--bundle", "{tmp}", *GOOD], "is not a bundle"),
    "no source": (["track", "none.mp4", "--bundle", "{bundle}", *GOOD], "does not exist"),
    "no prompt": (["track", "{clip}", "--bundle", "{bundle}"], "no prompt is given"),
    "outside": (
        ["track", "{clip}", "--bundle", "{bundle}", "--point", "128,5"],
        "128,5 is outside",
    ),
    "past the end": (
        ["track", "{clip}", "--bundle", "{bundle}", *GOOD, "--frames", "6:9"],
        "frame 6 is past the end",
    ),
    "an id that no PNG holds": (
        ["track", "{clip}", "--bundle", "{bundle}", "--object", "300", *GOOD]
        + ["--masks", "{tmp}/m"],
        "object id 300 does not fit an indexed mask; use ids up to 255",
    ),
    "no mask": (["track", "{clip}", "--bundle", "{bundle}", "--mask", "x.png"], "x.png cannot be"),
    "late prompt": (
        ["track", "{clip}", "--bundle", "{bundle}", "--prompts", "{tmp}/late.json"],
        "a prompt is on frame 6, but the frames are 0 to 5",
    ),
    "existing output": (
        ["track", "{clip}", "--bundle", "{bundle}", *GOOD, "--jsonl", "{tmp}/late.json"],
        "late.json exists; choose another name or pass --overwrite",
    ),
    "empty mask": (
        ["track", "{clip}", "--bundle", "{bundle}", "--mask", "{tmp}/empty.png"],
        "the mask is empty",
    ),
    "mask of another size": (
        ["segment", "{clip}/0.png", "--bundle", "{bundle}", "--mask", "{tmp}/small.png"],
        "a mask of shape (9, 9) for a frame of (128, 128)",
    ),
    "label 7": (
        ["segment", "{clip}/0.png", "--bundle", "{bundle}", "--point", "5,5,7"],
        "label 7; give 1 for foreground or 0 for background",
    ),
    "object 0": (
        ["track", "{clip}", "--bundle", "{bundle}", "--object", "0", *GOOD],
        "object id 0; give an integer of at least 1",
    ),
    "no prompt for the image": (
        ["segment", "{clip}/0.png", "--bundle", "{bundle}"],
        "no prompt is given",
    ),
    "no prompts file": (
        ["track", "{clip}", "--bundle", "{bundle}", "--prompts", "{tmp}/none.json"],
        "none.json cannot be read",
    ),
    "unknown video suffix": (
        ["track", "{clip}", "--bundle", "{bundle}", *GOOD, "--video", "{tmp}/o.gif"],
        "unknown suffix; give one of .mp4, .mkv, .avi",
    ),
    "masks into a file": (
        ["segment", "{clip}/0.png", "--bundle", "{bundle}", *GOOD, "--masks", "{tmp}/late.json"],
        "late.json is not a folder",
    ),
    "folder as image": (["segment", "{clip}", "--bundle", "{bundle}", *GOOD], "give an image file"),
    "folder without images": (
        ["track", "{bundle}", "--bundle", "{bundle}", *GOOD],
        "holds no images",
    ),
    "clips into a folder that is not empty": (["synth", "{bundle}"], "is not empty"),
    "inspect no bundle": (["inspect", "{clip}"], "is not a bundle"),
    "no image": (["segment", "none.png", "--bundle", "{bundle}", *GOOD], "none.png does not exist"),
    "no model": (["export", "sam9", "--output", "{tmp}/x"], "neither a file, a folder nor a known"),
    "image size": (
        ["export", "sam2.1-hiera-tiny", "--random-init", "1", "--image-size", "1000"]
        + ["--output", "{tmp}/x"],
        "image size 1000",
    ),
    "existing bundle": (
        ["export", "sam2.1-hiera-tiny", "--random-init", "1", "--output", "{bundle}"],
        "exists; choose another folder or pass --overwrite",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bundle: str,
    clip_folder: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    entries = [{"frame": 6, "object": 1, "points": [[1, 1]]}]
    (tmp_path / "late.json").write_text(json.dumps(entries))
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((128, 128), np.uint8))
    cv2.imwrite(str(tmp_path / "small.png"), np.ones((9, 9), np.uint8))
    places = {"clip": clip_folder, "bundle": bundle, "tmp": tmp_path}

    code = run(monkeypatch, *[a.format(**places) for a in arguments])

    shown = capsys.readouterr()
    (line,) = [x for x in shown.err.splitlines() if x.startswith("error:")]
    assert code == 1
    assert message in line
    assert shown.out == ""
    assert not (tmp_path / "x").exists()
    assert json.loads((tmp_path / "late.json").read_text()) == entries


WRONG_USAGE = {
    "unknown option": ["track", "x", "--bundle", "b", "--points", "1,2"],
    "no bundle": ["track", "x"],
    "point of one number": ["track", "{clip}", "--bundle", "{bundle}", "--point", "5"],
    "point of letters": ["track", "{clip}", "--bundle", "{bundle}", "--point", "a,b"],
    "box of two numbers": ["track", "{clip}", "--bundle", "{bundle}", "--box", "1,2"],
    "object without prompt": ["track", "{clip}", "--bundle", "{bundle}"]
    + ["--object", "1", *GOOD, "--object", "2"],
    "object of letters": ["track", "{clip}", "--bundle", "{bundle}", "--object", "cup", *GOOD],
    "range without colon": ["track", "{clip}", "--bundle", "{bundle}", *GOOD, "--frames", "5"],
    "range backwards": ["track", "{clip}", "--bundle", "{bundle}", *GOOD, "--frames", "5:2"],
    "no threads": ["track", "{clip}", "--bundle", "{bundle}", *GOOD, "--threads", "0"],
    "both kinds of prompts": ["track", "{clip}", "--bundle", "{bundle}", *GOOD, "--prompts", "p"],
    "two boxes": ["track", "{clip}", "--bundle", "{bundle}"]
    + ["--box", "1,1,9,9", "--box", "2,2,8,8"],
    "precision": ["export", "sam2.1-hiera-tiny", "--output", "x", "--precision", "int2"],
    "rounding": ["export", "sam2.1-hiera-tiny", "--output", "x", "--memory-rounding", "half"],
    "size of letters": ["export", "sam2.1-hiera-tiny", "--output", "x", "--image-size", "big"],
    "no output": ["export", "sam2.1-hiera-tiny"],
    "no clips": ["synth", "x", "--clips", "0"],
    "unknown command": ["follow"],
}


@pytest.mark.parametrize("arguments", WRONG_USAGE.values(), ids=WRONG_USAGE.keys())
def test_wrong_usage_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bundle: str,
    clip_folder: Path,
    arguments: list[str],
) -> None:
    places = {"clip": clip_folder, "bundle": bundle}
    assert run(monkeypatch, *[a.format(**places) for a in arguments]) == 2
    assert "Error" in capsys.readouterr().err


def test_a_source_that_breaks_off_leaves_what_came_before(
    bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    (clip_folder / "3.png").write_bytes(b"\x89PNG broken")
    outputs = [tmp_path / "o.avi", tmp_path / "m", tmp_path / "o.jsonl"]
    options = ["--video", outputs[0], "--masks", outputs[1], "--jsonl", outputs[2]]

    done = subprocess.run(
        [SCRIPT, "track", clip_folder, "--bundle", bundle, *GOOD, *options],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "3.png cannot be decoded" in done.stderr
    assert "Traceback" not in done.stderr
    assert cv2.VideoCapture(str(outputs[0])).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert len(list(outputs[1].iterdir())) == 3
    assert len(outputs[2].read_text().splitlines()) == 3


def test_a_video_that_breaks_off_leaves_what_came_before(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bundle: str,
    tmp_path: Path,
) -> None:
    source = video(tmp_path / "in.avi", 12)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    outputs = [tmp_path / "o.mp4", tmp_path / "m", tmp_path / "o.jsonl"]
    options = ["--video", outputs[0], "--masks", outputs[1], "--jsonl", outputs[2]]

    code = run(monkeypatch, "track", source, "--bundle", bundle, *GOOD, *options)

    shown = capsys.readouterr().err
    found = re.search(r"in\.avi ends after (\d+) frames, but declares 12", shown)
    assert code == 1
    assert found
    count = int(found[1])
    assert 2 < count < 10
    assert len(list(open_source(outputs[0]))) == count
    assert len(list(outputs[1].iterdir())) == count
    assert [r["frame"] for r in lines_of(outputs[2])] == list(range(count))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_what_came_before(
    bundle: str, tmp_path: Path, number: signal.Signals
) -> None:
    lines, overlay = tmp_path / "o.jsonl", tmp_path / "o.mp4"
    source = video(tmp_path / "in.avi", 200)
    command = [SCRIPT, "track", source, "--bundle", bundle, *GOOD, "--threads", "1"]
    running = subprocess.Popen(
        [*command, "--jsonl", lines, "--video", overlay],
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a script, SIGINT is ignored and passed on so.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while running.poll() is None and not (lines.exists() and lines.stat().st_size):
        time.sleep(0.02)
    running.send_signal(number)
    _, shown = running.communicate(timeout=30)

    assert running.returncode == 130
    assert "Traceback" not in shown
    count = len(lines_of(lines))
    assert 0 < count < 200
    assert abs(len(list(open_source(overlay))) - count) <= 1


def test_segment_and_export_end_as_programs_do(
    bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    segment = ["segment", clip_folder / "0.png", "--bundle", bundle, *GOOD]
    outputs = ["--masks", tmp_path / "masks"]
    export = ["export", "sam2.1-hiera-tiny", "--output", bundle]

    good, bad = (
        subprocess.run([SCRIPT, *command], capture_output=True, text=True, check=False)
        for command in ([*segment, *outputs], export)
    )

    assert good.returncode == 0
    assert cv2.imread(str(tmp_path / "masks" / "1.png"), cv2.IMREAD_GRAYSCALE).shape == (128, 128)
    assert bad.returncode == 1
    assert f"error: {bundle} exists" in bad.stderr
    assert "Traceback" not in good.stderr + bad.stderr
