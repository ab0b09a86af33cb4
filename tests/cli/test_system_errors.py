"""Errors of the operating system end a command with one line, whatever raised them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sam2_edge.cli import main as entry
from tests.helpers.cli import CLICK, SCRIPT, run

COMMANDS = (
    "track {path} --bundle nano --point 34,38",
    "track {clip} --bundle {path} --point 34,38",
    "track {clip} --bundle nano --prompts {path}",
    "track {clip} --bundle nano --point 34,38 --jsonl {path}",
    "track {clip} --bundle nano --point 34,38 --masks {path}",
    "track {clip} --bundle nano --point 34,38 --video {path}.mp4",
    "segment {path} --bundle nano --point 34,38",
    "segment {clip}/0.png --bundle nano --point 34,38 --json {path}",
    "run {clip} --bundle nano --jsonl {path}",
    "inspect {path}",
    "synth {path}",
    "score {path} {clip}",
    "eval {path} nano --output {tmp}/out",
    "export {path} --output {tmp}/out",
    "export nano --output {path}",
    "verify {path}",
    "bench nano --source {path}",
)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("path", ["{tmp}/" + 300 * "n", "{tmp}/file/x", "{tmp}/loop"])
def test_a_path_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    clip_folder: Path,
    tmp_path: Path,
    command: str,
    path: str,
) -> None:
    (tmp_path / "file").touch()
    for name in ("loop", "loop.mp4"):
        (tmp_path / name).symlink_to(name)
    named = path.format(tmp=tmp_path)

    code = run(
        monkeypatch,
        *command.format(path=named, clip=clip_folder, tmp=tmp_path).split(),
    )

    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    assert code == 1
    assert named in line


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied; give"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free some"),
        (OSError(errno.EXDEV, "Invalid link", "a", None, "b"), "a to b: Invalid link"),
        (OSError(errno.EIO, "Input/output error", b"\xff"), "Input/output error"),
        (MemoryError("Unable to allocate 2 GiB"), "not enough memory (Unable to allocate 2 GiB)"),
    ],
)
def test_an_error_from_anywhere_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    message: str,
) -> None:
    def fail(**_options: object) -> None:
        raise error

    monkeypatch.setattr(entry.cli.commands["doctor"], "callback", fail)
    assert run(monkeypatch, "doctor") == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert message in shown


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry.cli.commands["doctor"], "callback", lambda **_: {}["missing"])
    monkeypatch.setattr(sys, "argv", ["sam2-edge", "doctor"])
    with pytest.raises(KeyError, match="missing"):
        entry.main()


def test_output_that_cannot_be_written_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [SCRIPT, "inspect", "--json", "nano"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: No space left on device")
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_leaves_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [SCRIPT, "inspect", "--json", "nano"],
        stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_closed_streams_keep_outputs_apart(clip_folder: Path, tmp_path: Path) -> None:
    line = 'exec "$@" <&- >&- 2>&-'
    track = [SCRIPT, "track", clip_folder, "--bundle", "nano", *CLICK]
    outputs = ["--jsonl", tmp_path / "o.jsonl"]
    done = subprocess.run(["/bin/bash", "-c", line, "bash", *track, *outputs], check=False)
    assert done.returncode == 0
    lines = (tmp_path / "o.jsonl").read_text().splitlines()
    assert len(lines) == 6
    assert all(line.startswith('{"frame"') for line in lines)


def test_any_name_can_be_printed_in_ascii(tmp_path: Path) -> None:
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run(
        [SCRIPT, "inspect", tmp_path / "Größe"],
        env=ascii_only, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Gr\\xf6\\xdfe is not a bundle" in done.stderr
