"""`sam2-edge track`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from sam2_edge.runtime.sources.video import open_source
from tests.helpers.cli import CLICK, SCRIPT, lines_of, run, video
from tests.helpers.clips import Clip


def test_track_writes_masks_json_lines_and_an_overlay(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    outputs = [tmp_path / "o.mp4", tmp_path / "masks", tmp_path / "o.jsonl"]
    options = ["--video", outputs[0], "--masks", outputs[1], "--jsonl", outputs[2]]
    prompts = ["--object", 4, "--point", "34,38", "--point", "90,90,0"]
    more = ["--object", 9, "--box", "70,70,120,120"]

    code = run(monkeypatch, "track", clip_folder, "--bundle", bundle, *prompts, *more, *options)

    lines = lines_of(outputs[2])
    assert code == 0
    assert [(r["frame"], r["object"]) for r in lines] == [(f, o) for f in range(6) for o in (4, 9)]
    assert sorted(p.name for p in outputs[1].iterdir()) == [f"{i}.png" for i in range(6)]
    values = set(np.unique(np.asarray(Image.open(outputs[1] / "0.png"))))
    assert values <= {0, 4, 9}
    assert len(values) > 1
    assert cv2.VideoCapture(str(outputs[0])).get(cv2.CAP_PROP_FRAME_COUNT) == 6


def test_names_of_options_and_prompt_files_reach_the_results(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    entry = {"frame": 0, "object": 1, "points": [[34, 38]], "name": "left"}
    late = {"frame": 2, "object": 2, "points": [[90, 90]], "name": "right"}
    (tmp_path / "p.json").write_text(json.dumps([entry, late]))
    typed = ["--object", 1, "--point", "34,38", "--name", "left", "--object", 2]
    typed += ["--name", "right", "--point", "90,90"]

    for name, prompts in (("file", ["--prompts", tmp_path / "p.json"]), ("typed", typed)):
        output = tmp_path / f"{name}.jsonl"
        options = ["--bundle", bundle, *prompts, "--jsonl", output]
        assert run(monkeypatch, "track", clip_folder, *options) == 0
        found = {(line["object"], line["name"]) for line in lines_of(output)}
        assert found == {(1, "left"), (2, "right")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--point", "34,38", "--name", "x" * 41], "has 41 characters; give at most 40"),
        (["--point", "34,38", "--name", "a", "--name", "b"], "object 1 has more than one name"),
        (["--point", "34,38", "--object", 2, "--name", "b"], "object 2 has no prompt"),
    ],
)
def test_a_wrong_name_is_refused_before_the_model_loads(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    clip_folder: Path,
    options: list[str],
    message: str,
) -> None:
    assert run(monkeypatch, "track", clip_folder, "--bundle", "none", *options) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_range_of_a_video_is_tracked(
    monkeypatch: pytest.MonkeyPatch, bundle: str, tmp_path: Path
) -> None:
    source = video(tmp_path / "in.avi")
    options = ["--frames", "3:7", "--video", tmp_path / "o.mp4", "--jsonl", tmp_path / "o.jsonl"]

    assert run(monkeypatch, "track", source, "--bundle", bundle, *CLICK, *options) == 0

    lines = lines_of(tmp_path / "o.jsonl")
    assert [(r["frame"], r["frame_name"]) for r in lines] == [(i, f"{i:05d}") for i in range(3, 7)]
    written = open_source(tmp_path / "o.mp4")
    assert (written.frames, written.fps) == (4, 12)


@pytest.mark.parametrize(("fps", "rate"), [("30000/1001", 30000 / 1001), ("7.5", 7.5)])
def test_the_overlay_has_the_codec_and_the_rate_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, bundle: str, tmp_path: Path, fps: str, rate: float
) -> None:
    source = video(tmp_path / "in.avi", 4)
    options = ["--video", tmp_path / "o.mp4", "--codec", "vp9", "--fps", fps]

    assert run(monkeypatch, "track", source, "--bundle", bundle, *CLICK, *options) == 0

    with av.open(str(tmp_path / "o.mp4")) as written:
        assert written.streams.video[0].codec_context.name == "vp9"
        assert float(written.streams.video[0].average_rate or 0) == rate
        assert sum(1 for _ in written.decode(video=0)) == 4


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--video", "o.mp4", "--codec", "divx"], 1, "codec 'divx' is unknown; .mp4 takes h264"),
        (["--video", "o.mp4", "--fps", "0"], 2, "'0' is not a frame rate; give a number up to 1"),
        (["--video", "o.mp4", "--fps", "1/0"], 2, "'1/0' is not a frame rate"),
        (["--codec", "h264"], 2, "--codec and --fps are for the overlay; give --video as well"),
    ],
)
def test_a_wrong_codec_or_rate_is_refused_before_the_model_loads(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    options: list[str],
    code: int,
    message: str,
) -> None:
    source = video(tmp_path / "in.avi", 2)
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "track", source, "--bundle", "none", *CLICK, *options) == code
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_outputs_are_replaced_only_with_overwrite(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    lines, masks = tmp_path / "o.jsonl", tmp_path / "masks"
    command = ["track", clip_folder, "--bundle", bundle, "--jsonl", lines, "--masks", masks]
    assert run(monkeypatch, *command, "--frames", "0:3", *CLICK) == 0
    assert run(monkeypatch, *command, "--frames", "0:2", *CLICK) == 1
    assert len(lines_of(lines)) == 3
    assert run(monkeypatch, *command, "--frames", "0:2", *CLICK, "--overwrite") == 0
    assert len(lines_of(lines)) == 2


def test_the_source_is_never_overwritten(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    source, image = video(tmp_path / "in.avi"), clip_folder / "0.png"
    before = {p: p.read_bytes() for p in (source, *clip_folder.iterdir())}
    common = ["--bundle", bundle, *CLICK, "--overwrite"]

    codes = [
        run(monkeypatch, "track", source, *common, "--video", source),
        run(monkeypatch, "track", clip_folder, *common, "--masks", clip_folder),
        run(monkeypatch, "segment", image, *common, "--overlay", image),
    ]

    assert codes == [1, 1, 1]
    assert {p: p.read_bytes() for p in before} == before


def test_two_outputs_cannot_share_a_file(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    common = ["--bundle", bundle, *CLICK]
    both = tmp_path / "o.mp4"
    code = run(monkeypatch, "track", clip_folder, *common, "--video", both, "--jsonl", both)
    assert code in (1, 2)
    assert not both.exists()


def test_a_rejected_prompt_leaves_no_outputs(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    options = ["--masks", out / "m", "--jsonl", out / "o.jsonl", "--video", out / "o.mp4"]
    command = ["track", clip_folder, "--bundle", bundle, *options]
    assert run(monkeypatch, *command, "--point", "128,5") == 1
    assert list(out.iterdir()) == []
    assert run(monkeypatch, *command, *CLICK, "--frames", "0:1") == 0  # without --overwrite


def test_prompts_belong_to_the_object_before_them(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    def lines(name: str, *prompts: str) -> list[object]:
        path = tmp_path / name
        common = ["track", clip_folder, "--bundle", bundle, "--frames", "0:1", "--jsonl", path]
        assert run(monkeypatch, *common, *prompts) == 0
        return sorted((r["object"], r["rle"]["counts"]) for r in lines_of(path))

    a, b = "34,38", "92,75"
    first = lines("1", "--object", "1", "--point", a, "--object", "2", "--point", b)
    swapped = lines("2", "--object", "2", "--point", b, "--object", "1", "--point", a)
    other = lines("3", "--object", "1", "--point", b, "--object", "2", "--point", a)
    single = lines("4", "--point", a)
    assert first == swapped != other
    assert single == [first[0]]
    assert lines("5", "--point", a, "--object", "1") == [first[0]]
    assert lines("6", "--point", b, "--object", "2") == [first[1]]


def test_frame_numbers_of_a_prompts_file_are_those_of_the_source(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    entries = [{"frame": 3, "object": 2, "points": [[34, 38]]}]
    (tmp_path / "p.json").write_text(json.dumps(entries))
    options = ["--prompts", tmp_path / "p.json", "--frames", "2:5", "--jsonl", tmp_path / "o"]

    assert run(monkeypatch, "track", clip_folder, "--bundle", bundle, *options) == 0

    lines = lines_of(tmp_path / "o")
    assert [(r["frame"], r["object"]) for r in lines] == [(3, 2), (4, 2)]


def test_an_object_is_prompted_with_a_mask_file(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip: Clip, clip_folder: Path, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "disc.png"), (clip.masks[0] == 1).astype(np.uint8) * 255)
    options = ["--mask", tmp_path / "disc.png", "--masks", tmp_path / "out", "--frames", "0:1"]

    assert run(monkeypatch, "track", clip_folder, "--bundle", bundle, *options) == 0

    got = np.asarray(Image.open(tmp_path / "out" / "0.png")) == 1
    disc = clip.masks[0] == 1
    assert (got & disc).sum() / (got | disc).sum() > 0.9


def test_a_broken_image_leaves_the_earlier_results(
    bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    (clip_folder / "3.png").write_bytes(b"\x89PNG broken")
    outputs = [tmp_path / "o.avi", tmp_path / "m", tmp_path / "o.jsonl"]
    options = ["--video", outputs[0], "--masks", outputs[1], "--jsonl", outputs[2]]

    done = subprocess.run(
        [SCRIPT, "track", clip_folder, "--bundle", bundle, *CLICK, *options],
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


def test_a_truncated_video_leaves_the_earlier_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bundle: str, tmp_path: Path
) -> None:
    source = video(tmp_path / "in.avi", 12)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    outputs = [tmp_path / "o.mp4", tmp_path / "m", tmp_path / "o.jsonl"]
    options = ["--video", outputs[0], "--masks", outputs[1], "--jsonl", outputs[2]]

    code = run(monkeypatch, "track", source, "--bundle", bundle, *CLICK, *options)

    shown = capsys.readouterr().err
    found = re.search(r"in\.avi ends after (\d+) frames and is truncated", shown)
    assert code == 1
    assert found
    count = int(found[1])
    assert 2 < count < 10
    assert len(list(open_source(outputs[0]))) == count
    assert len(list(outputs[1].iterdir())) == count
    assert [r["frame"] for r in lines_of(outputs[2])] == list(range(count))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_the_earlier_results(
    bundle: str, tmp_path: Path, number: signal.Signals
) -> None:
    lines, overlay = tmp_path / "o.jsonl", tmp_path / "o.mp4"
    source = video(tmp_path / "in.avi", 200)
    command = [SCRIPT, "track", source, "--bundle", bundle, *CLICK, "--threads", "1"]
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


def test_frames_whose_names_are_not_utf_8_are_tracked(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    frames = tmp_path / os.fsdecode(b"f\xfcnf")
    frames.mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    (frames / name).write_bytes((clip_folder / "0.png").read_bytes())
    masks, lines = tmp_path / "masks", tmp_path / "o.jsonl"

    code = run(
        *(monkeypatch, "track", frames, "--bundle", bundle, *CLICK),
        *("--masks", masks, "--jsonl", lines),
    )

    assert code == 0
    assert [path.name for path in masks.iterdir()] == [name]
    assert [line["frame_name"] for line in lines_of(lines)] == [r"caf\xe9"]


def test_frames_that_change_their_size_are_reported(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    clip: Clip,
    tmp_path: Path,
) -> None:
    (tmp_path / "frames").mkdir()
    for index, size in enumerate([(128, 128), (128, 128), (96, 64)]):
        picture = cv2.resize(clip.frames[index], size)
        cv2.imwrite(str(tmp_path / "frames" / f"{index}.png"), picture)
    assert run(monkeypatch, "track", tmp_path / "frames", "--bundle", "nano", *CLICK) == 0
    shown = capsys.readouterr().err
    assert "size of the frames changes: 128 x 128 from frame 0, 96 x 64 from frame 2" in shown
