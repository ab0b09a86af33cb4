"""What goes to standard output and to standard error, and in which form."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from sam2_edge.cli import output
from tests.helpers.cli import CLICK, run
from tests.helpers.clips import moving_shapes

Capture = pytest.CaptureFixture[str]


def test_json_lines_are_all_that_goes_to_standard_output(
    monkeypatch: pytest.MonkeyPatch, capfd: Capture, bundle: str, clip_folder: Path
) -> None:
    command = ("track", clip_folder, "--bundle", bundle, *CLICK, "--jsonl", "-")
    assert run(monkeypatch, *command) == 0

    shown = capfd.readouterr()
    assert [json.loads(line)["frame"] for line in shown.out.splitlines()] == list(range(6))
    assert "object 1: present on" in shown.err


@pytest.mark.parametrize("option", [["--json"], ["--json", "-"]])
def test_segment_prints_json_instead_of_its_table(
    monkeypatch: pytest.MonkeyPatch,
    capfd: Capture,
    bundle: str,
    clip_folder: Path,
    option: list[str],
) -> None:
    command = ("segment", clip_folder / "0.png", *option, "--bundle", bundle, *CLICK)
    assert run(monkeypatch, *command) == 0
    (record,) = json.loads(capfd.readouterr().out)
    assert {"object", "rank", "iou", "box", "area", "rle"} <= record.keys()
    assert record["area"] > 0


@pytest.mark.parametrize("command", ["doctor", "inspect nano"])
def test_reports_as_json(monkeypatch: pytest.MonkeyPatch, capsys: Capture, command: str) -> None:
    assert run(monkeypatch, *command.split(), "--json") == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)


@pytest.mark.parametrize("quiet_first", [True, False])
def test_quiet_leaves_results_and_errors(
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    bundle: str,
    clip_folder: Path,
    quiet_first: bool,
) -> None:
    def quiet(*command: object) -> int:
        words = ("--quiet", *command) if quiet_first else (*command, "--quiet")
        return run(monkeypatch, *words)

    assert quiet("track", clip_folder, "--bundle", bundle, *CLICK) == 0
    assert capsys.readouterr() == ("", "")

    assert quiet("segment", clip_folder / "0.png", "--bundle", bundle, *CLICK) == 0
    shown = capsys.readouterr()
    assert "predicted IoU" in shown.out
    assert shown.err == ""

    assert quiet("inspect", clip_folder) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_quiet_and_verbose_exclude_each_other(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert run(monkeypatch, "--quiet", "inspect", "nano", "--verbose") == 2
    assert "exclude each other" in capsys.readouterr().err


def test_progress_is_a_line_now_and_then_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(output, "LINE_EVERY_S", 0)
    with output.progress("comparing", 3) as advance:
        advance("")
        advance("9.0 frames/s")
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        "comparing: 1 of 3 frames",
        "comparing: 2 of 3 frames, 9.0 frames/s",
    ]
    assert shown.out == ""


def test_a_log_record_is_one_line_with_time_and_level(capsys: Capture) -> None:
    handler = output.log_handler()
    text = "a sentence " * 20 + "\nand another"
    handler.handle(logging.LogRecord("sam2_edge.x", logging.WARNING, "", 0, text, (), None))

    (line,) = capsys.readouterr().err.splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
    assert re.fullmatch(rf"{stamp} WARNING sam2_edge\.x: (a sentence )+\\nand another", line)


def test_a_pipe_gets_whole_names_whatever_the_width(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    table = output.new_table("name", title="a title of some length")
    table.add_row("/a/path/that/is/longer/than/twenty/columns")
    output.show_table(output.results(), table)
    output.notes().print("run: sam2-edge track /a/path/that/is/longer/than/twenty/columns --now")
    shown = capsys.readouterr()
    assert "/a/path/that/is/longer/than/twenty/columns" in shown.out
    assert len(shown.err.splitlines()) == 1


@pytest.mark.parametrize("name", ["track", "run"])
def test_a_reader_that_has_seen_enough_is_no_error(name: str, bundle: str, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()

    for index, frame in enumerate(moving_shapes(6).frames):
        cv2.imwrite(str(folder / f"{index}.png"), frame)
    program = [sys.executable, "-m", "sam2_edge"]
    command = [*program, name, folder, "--bundle", bundle, *CLICK, "--jsonl", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        text = process.stderr.read().decode()
    assert process.returncode == 1
    assert "error" not in text.lower()
    assert "Traceback" not in text
