"""Exit codes and error messages of all commands."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from sam2_edge.cli.main import cli
from tests.helpers.cli import CLICK, SCRIPT, run

BAD_INPUT = {
    "no bundle": ("track {clip} --bundle {tmp} --point 34,38", "is not a bundle"),
    "missing source": ("track none.mp4 --bundle {bundle} --point 34,38", "does not exist"),
    "no prompt": ("track {clip} --bundle {bundle}", "give --point, --box, --mask or --prompts"),
    "point outside the frame": ("track {clip} --bundle {bundle} --point 128,5", "128,5 is outside"),
    "range past the end": (
        "track {clip} --bundle {bundle} --point 34,38 --frames 6:9",
        "frame 6 is past the end",
    ),
    "object id too large for a PNG": (
        "track {clip} --bundle {bundle} --object 300 --point 34,38 --masks {tmp}/m",
        "object id 300 does not fit an indexed mask (255 is no object",
    ),
    "missing mask file": ("track {clip} --bundle {bundle} --mask x.png", "x.png does not exist"),
    "late prompt": (
        "track {clip} --bundle {bundle} --prompts {tmp}/late.json",
        "a prompt is on frame 6, but the frames are 0 to 5",
    ),
    "existing output": (
        "track {clip} --bundle {bundle} --point 34,38 --jsonl {tmp}/late.json",
        "late.json exists; choose another name or pass --overwrite",
    ),
    "empty mask": ("track {clip} --bundle {bundle} --mask {tmp}/empty.png", "the mask is empty"),
    "mask of another size": (
        "segment {clip}/0.png --bundle {bundle} --mask {tmp}/small.png",
        "small.png of shape (9, 9) for a frame of (128, 128)",
    ),
    "unknown label": (
        "segment {clip}/0.png --bundle {bundle} --point 5,5,7",
        "label 7; give 1 for foreground or 0 for background",
    ),
    "object id 0": (
        "track {clip} --bundle {bundle} --object 0 --point 34,38",
        "object id 0; give an integer of at least 1",
    ),
    "no prompt for the image": ("segment {clip}/0.png --bundle {bundle}", "no prompt is given"),
    "missing prompts file": (
        "track {clip} --bundle {bundle} --prompts {tmp}/none.json",
        "none.json does not exist",
    ),
    "unknown video suffix": (
        "track {clip} --bundle {bundle} --point 34,38 --video {tmp}/o.gif",
        "unknown suffix; give one of .mp4, .mkv, .avi",
    ),
    "file as mask folder": (
        "segment {clip}/0.png --bundle {bundle} --point 34,38 --masks {tmp}/late.json",
        "late.json is not a folder",
    ),
    "unknown image suffix": (
        "segment {clip}/0.png --bundle none --point 34,38 --overlay {tmp}/o.pmg",
        "o.pmg is not the name of an image; give one that ends with .png or .jpg",
    ),
    "standard output as a folder": (
        "segment {clip}/0.png --bundle none --point 34,38 --masks -",
        "- is standard output, but a folder is needed",
    ),
    "folder as image": (
        "segment {clip} --bundle {bundle} --point 34,38",
        "is a folder; give a file",
    ),
    "folder without images": ("track {bundle} --bundle {bundle} --point 34,38", "no images; known"),
    "folder that is not empty": ("synth {bundle}", "is not empty"),
    "inspect something else": ("inspect {clip}", "is not a bundle"),
    "missing image": (
        "segment none.png --bundle {bundle} --point 34,38",
        "none.png does not exist",
    ),
    "unknown model": ("export sam9 --output {tmp}/x", "neither a file, a folder nor a known"),
    "image size": (
        "export sam2.1-hiera-tiny --random-init 1 --image-size 1000 --output {tmp}/x",
        "image size 1000",
    ),
    "existing bundle": (
        "export sam2.1-hiera-tiny --random-init 1 --output {bundle}",
        "exists; choose another folder or pass --overwrite",
    ),
}


@pytest.mark.parametrize(("command", "message"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_a_one_line_error_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bundle: str,
    clip_folder: Path,
    tmp_path: Path,
    command: str,
    message: str,
) -> None:
    entries = [{"frame": 6, "object": 1, "points": [[1, 1]]}]
    (tmp_path / "late.json").write_text(json.dumps(entries))
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((128, 128), np.uint8))
    cv2.imwrite(str(tmp_path / "small.png"), np.ones((9, 9), np.uint8))
    places = {"clip": clip_folder, "bundle": bundle, "tmp": tmp_path}

    code = run(monkeypatch, *command.format(**places).split())

    shown = capsys.readouterr()
    (line,) = [x for x in shown.err.splitlines() if x.startswith("error:")]
    assert code == 1
    assert message in line
    assert shown.out == ""
    assert not (tmp_path / "x").exists()
    assert json.loads((tmp_path / "late.json").read_text()) == entries


WRONG_USAGE = {
    "unknown option": "track x --bundle b --points 1,2",
    "no bundle": "track x",
    "point of one number": "track {clip} --bundle {bundle} --point 5",
    "point of letters": "track {clip} --bundle {bundle} --point a,b",
    "box of two numbers": "track {clip} --bundle {bundle} --box 1,2",
    "object without prompt": "track {clip} --bundle {bundle} --object 1 --point 34,38 --object 2",
    "object of letters": "track {clip} --bundle {bundle} --object cup --point 34,38",
    "range without colon": "track {clip} --bundle {bundle} --point 34,38 --frames 5",
    "range backwards": "track {clip} --bundle {bundle} --point 34,38 --frames 5:2",
    "no threads": "track {clip} --bundle {bundle} --point 34,38 --threads 0",
    "both kinds of prompts": "track {clip} --bundle {bundle} --point 34,38 --prompts p",
    "two boxes": "track {clip} --bundle {bundle} --box 1,1,9,9 --box 2,2,8,8",
    "precision": "export sam2.1-hiera-tiny --output x --precision int2",
    "rounding": "export sam2.1-hiera-tiny --output x --memory-rounding half",
    "image size in letters": "export sam2.1-hiera-tiny --output x --image-size big",
    "no output": "export sam2.1-hiera-tiny",
    "no clips": "synth x --clips 0",
    "unknown command": "follow",
}


@pytest.mark.parametrize("command", WRONG_USAGE.values(), ids=WRONG_USAGE.keys())
def test_wrong_usage_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bundle: str,
    clip_folder: Path,
    command: str,
) -> None:
    places = {"clip": clip_folder, "bundle": bundle}
    assert run(monkeypatch, *command.format(**places).split()) == 2
    assert "Error" in capsys.readouterr().err


def test_the_installed_program_ends_without_a_traceback(
    bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    segment = ["segment", clip_folder / "0.png", "--bundle", bundle, *CLICK]
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


def test_the_list_of_commands_has_the_summary_of_each() -> None:
    shown = CliRunner().invoke(cli, ["--help"], terminal_width=200).output
    for name, command in cli.commands.items():
        summary = command.get_short_help_str(limit=200)
        assert re.search(rf"^  {name} +{re.escape(summary)}$", shown, re.MULTILINE), name


@pytest.mark.parametrize("name", cli.commands)
def test_every_command_has_an_example_of_its_own(name: str) -> None:
    shown = CliRunner().invoke(cli, [name, "--help"]).output
    assert re.search(rf"Examples?:\n.*^  +sam2-edge {name} ", shown, re.MULTILINE | re.DOTALL)


def test_summaries_of_commands_fit_80_columns() -> None:
    shown = CliRunner().invoke(cli, ["--help"], terminal_width=80).output
    summaries = shown.split("Commands:\n")[1].partition("\n\n")[0].splitlines()
    assert len(summaries) == len(cli.commands)
    assert not any(line.endswith("...") for line in summaries)
