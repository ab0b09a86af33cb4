"""`sam2-edge run`: outputs, options and termination."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from sam2_edge import PromptError, SinkError
from sam2_edge.cli.main import cli
from tests.helpers.cli import SCRIPT, lines_of, run, video
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
        (["--keep-gb", "0"], SinkError, "keep_bytes is 0.0; give more than 0"),
    ],
)
def test_invalid_options_are_rejected_at_once(
    options: list[str], error: type[BaseException], message: str, clip_file: Path
) -> None:
    done = CliRunner().invoke(cli, ["run", str(clip_file), "--bundle", "nano", *options])
    assert isinstance(done.exception, error)
    assert message in done.output + str(done.exception)


LINES, VIDEO_BYTES = 12, 200_000


def start(folder: Path) -> subprocess.Popen[str]:
    """Start the command on the synthetic camera, and wait until it has written something."""
    command = [str(SCRIPT), "run", "synth", "--bundle", "nano", "--point", "240,240"]
    command += ["--jsonl", str(folder / "j"), "--video", str(folder / "v"), "--threads", "1"]
    process = subprocess.Popen(
        [*command, "--report-s", "0.2", "--log-json"], stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: process.poll() is not None or has_written(folder))
    assert process.poll() is None
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
    assert run(monkeypatch, "run", "synth", "--bundle", "nano") == 1
    assert "synth contains no images" in capsys.readouterr().err
