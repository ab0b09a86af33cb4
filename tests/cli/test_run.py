"""`sam2-edge run`: outputs, options and termination."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sam2_edge import PromptError, Sam2EdgeError, SinkError
from sam2_edge.cli.main import cli
from tests.helpers.cli import SCRIPT, call, lines_of, run, video
from tests.helpers.clips import count_frames
from tests.helpers.clock import wait_until


@pytest.fixture
def clip_file(tmp_path: Path) -> Path:
    return video(tmp_path / "clip.avi", frames=12)


def records(folder: Path) -> list[dict[str, object]]:
    return [record for file in sorted(folder.iterdir()) for record in lines_of(file)]


def test_a_file_is_tracked_to_its_end(clip_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["run", str(clip_file), "--bundle", "nano", "--point", "34,38", "--unpaced"]
    arguments += ["--jsonl", f"{out}/j", "--video", f"{out}/v", "--masks", f"{out}/m"]
    done = CliRunner().invoke(cli, [*arguments, "--report-s", "0.01"], catch_exceptions=False)
    assert done.exit_code == 0
    assert [r["frame"] for r in records(out / "j")] == list(range(12))
    assert len(list((out / "m").rglob("*.png"))) == 12


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--point", "500,5"], PromptError, "point 500,5 is outside the frame"),
        (["--object", "300", "--point", "5,5", "--masks", "m"], PromptError, "id 300 does not fit"),
        (["--udp", "nowhere"], SystemExit, "'nowhere' is not HOST:PORT"),
        (
            ["--udp", "[::1]:9", "--keep-gb", "0"],
            SystemExit,
            "'--keep-gb': 0.0 is not in the range",
        ),
    ],
)
def test_invalid_options_are_rejected_at_once(
    options: list[str], error: type[BaseException], message: str, clip_file: Path
) -> None:
    done = CliRunner().invoke(cli, ["run", str(clip_file), "--bundle", "nano", *options])
    assert isinstance(done.exception, error)
    assert message in done.output + str(done.exception)


def test_a_suffix_means_a_file_as_in_track(clip_file: Path, tmp_path: Path) -> None:
    command = ["run", clip_file, "--bundle", "nano", "--point", "34,38", "--unpaced"]
    command += ["--video", tmp_path / "o.mp4", "--jsonl", tmp_path / "o.jsonl"]
    call(*command)
    assert count_frames(tmp_path / "o.mp4") == len(lines_of(tmp_path / "o.jsonl")) == 12
    with pytest.raises(SinkError, match=r"o\.mp4 exists; choose another name or pass --overwrite"):
        call(*command)
    call(*command, "--overwrite")


def test_an_output_without_a_suffix_or_that_is_a_folder_rotates(
    clip_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "o.mp4").mkdir()
    command = ["run", clip_file, "--bundle", "nano", "--point", "34,38", "--unpaced"]
    call(*command, "--video", tmp_path / "o.mp4", "--jsonl", tmp_path / "j", "--keep-gb", 1)
    assert [path.suffix for path in (tmp_path / "o.mp4").iterdir()] == [".mp4"]
    assert [path.suffix for path in (tmp_path / "j").iterdir()] == [".jsonl"]


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr("sam2_edge.runtime.tracker.VideoTracker", load)


EARLY = [
    ("--point 5,5 --video o.mov", "o.mov: unknown suffix .mov; give a file that ends with .mp4"),
    ("--point 5,5 --jsonl o.json", "o.json: unknown suffix .json; give a file that ends with"),
    ("--point 5,5 --video o.mp4 --keep-gb 1", "--keep-gb is for a series of files, but o.mp4 is"),
    ("--point 5,5,7", "label 7; give 1 for foreground or 0 for background"),
    ("--box 9,9,3,3", "box 9,9,3,3 is empty"),
    ("--point 5,5 --jsonl /proc/none", "cannot be written: /proc is not writable"),
    ("--point 5,5 --prompts p.json", "give prompts as options or with --prompts, not both"),
    ("--prompts p.json --latest-frame", "a prompt is on frame 2, which may be dropped"),
]


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("command", ["run", "serve"])
@pytest.mark.parametrize(("options", "message"), EARLY)
def test_what_can_be_known_before_fails_before_the_model_is_loaded(
    command: str,
    options: str,
    message: str,
    clip_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if "/proc" in options and os.geteuid() == 0:
        message = "/proc/none cannot be created"  # nothing is unwritable for root
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.json").write_text('[{"frame": 2, "object": 1, "points": [[5, 5]]}]')
    with pytest.raises((Sam2EdgeError, click.UsageError)) as raised:
        call(command, clip_file, "--bundle", "nano", *options.split())
    assert message in str(raised.value)


@pytest.mark.usefixtures("no_model")
def test_a_command_that_would_do_nothing_says_so() -> None:
    with pytest.raises(click.UsageError, match="this would do nothing; give --point, --box"):
        call("run", "synth", "--bundle", "nano")


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("command", ["run", "serve"])
def test_a_source_that_does_not_exist_is_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, command, "none.mp4", "--bundle", "nano", "--point", "5,5") == 1
    assert capsys.readouterr().err == (
        "error: none.mp4 does not exist; give a file, a folder of images, a camera's number or "
        "URL, or synth\n"
    )


@pytest.mark.parametrize("command", ["run", "serve"])
def test_without_its_bundle_a_command_creates_nothing(
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "results"
    arguments = ["--bundle", "none", "--point", "5,5", "--jsonl", out]
    assert run(monkeypatch, command, "synth", *arguments) == 1
    assert capsys.readouterr().err.startswith("error: none is not a bundle: it does not exist;")
    assert not out.exists()


def test_a_camera_that_is_not_there_is_one_line() -> None:
    command = [SCRIPT, "run", "97", "--bundle", "nano", "--point", "5,5", "--log-json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: 97 cannot be opened as a camera; check that it is connected")


def test_a_prompts_file_prompts_later_frames_of_a_file(clip_file: Path, tmp_path: Path) -> None:
    entries = [
        {"frame": 0, "object": 1, "points": [[34, 38]]},
        {"frame": 5, "object": 2, "box": [20, 20, 60, 60]},
    ]
    (tmp_path / "p.json").write_text(json.dumps(entries))
    prompts = ["--bundle", "nano", "--prompts", tmp_path / "p.json"]
    call("run", clip_file, *prompts, "--unpaced", "--jsonl", tmp_path / "run.jsonl")
    seen = {(line["frame"], line["object"]) for line in lines_of(tmp_path / "run.jsonl")}
    assert seen == {(f, 1) for f in range(12)} | {(f, 2) for f in range(5, 12)}


LINES, VIDEO_BYTES = 12, 200_000


def start(folder: Path) -> subprocess.Popen[str]:
    """Start the command on the synthetic camera, and wait until it has written something."""
    command = [str(SCRIPT), "run", "synth", "--bundle", "nano", "--point", "240,240"]
    command += ["--jsonl", str(folder / "j"), "--video", str(folder / "v"), "--threads", "1"]
    process = subprocess.Popen(
        [*command, "--report-s", "0.2", "--log-json"], stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: process.poll() is not None or has_written(folder))
        assert process.poll() is None
    except BaseException:
        process.kill()
        raise
    return process


def has_written(folder: Path) -> bool:
    lines, videos = list(folder.glob("j/*")), list(folder.glob("v/*"))
    return (
        bool(lines and videos)
        and lines[0].read_bytes().count(b"\n") >= LINES
        and videos[0].stat().st_size > VIDEO_BYTES
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_loop_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    lines = [json.loads(line) for line in errors.splitlines()]
    assert lines[-1]["message"].startswith("ended: captured")
    assert lines[-1]["tracked"] == len(records(tmp_path / "j"))
    assert lines[-1]["tracked"] + lines[-1]["dropped"] <= lines[-1]["captured"]
    assert count_frames(next(tmp_path.glob("v/*"))) > 10


def test_after_kill_9_outputs_are_readable_to_the_last_whole_line(tmp_path: Path) -> None:
    process = start(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    (file,) = (tmp_path / "j").iterdir()
    *whole, _ = file.read_text().split("\n")
    assert len(whole) >= LINES
    assert [json.loads(line)["object"] for line in whole] == [1] * len(whole)
    assert count_frames(next(tmp_path.glob("v/*"))) > 5


def test_a_folder_named_like_the_synthetic_camera_is_the_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "synth").mkdir()
    assert run(monkeypatch, "run", "synth", "--bundle", "nano", "--point", "5,5") == 1
    assert "synth contains no images" in capsys.readouterr().err
