"""The README and the documentation: examples run, commands and options exist, links resolve."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import cv2
import numpy as np
import pytest

from sam2_edge import Bundle
from sam2_edge.cli.main import cli
from sam2_edge.runtime.results import encode_rle
from tests.helpers.clips import moving_shapes, write_video
from tests.helpers.markdown import (
    PAGES,
    code_blocks,
    inline_code,
    links,
    shell_commands,
)

EXAMPLES = {place: code for page in PAGES for place, code in code_blocks(page, "python").items()}

OPTIONS_OF_TOOLS = {"--device", "--full", "--hours", "--workers"}
"""Options of `python -m tools.nano`."""


@pytest.mark.parametrize("code", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_python_examples_run(
    code: str, small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = moving_shapes(4, (300, 480)).frames
    cv2.imwrite(str(tmp_path / "photo.jpg"), frames[0])
    for name, codec in (("clip.avi", "MJPG"), ("clip.mp4", "mp4v")):
        write_video(tmp_path / name, frames, codec=codec)
    mask = encode_rle(np.eye(4, dtype=np.bool_))
    (tmp_path / "results.jsonl").write_text(json.dumps({"rle": mask}) + "\n")
    (tmp_path / "tiny").symlink_to(small_bundle.path)
    monkeypatch.chdir(tmp_path)
    # A test machine has no camera.
    code = code.replace("VideoCapture(0)", "VideoCapture('clip.avi')")
    code = re.sub(r'"(0|rtsp://[^"]*)"', '"clip.avi"', code)

    exec(compile(code, "example", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    unknown = []
    for words in (*shell_commands(page), *map(str.split, inline_code(page))):
        name, *arguments = sam2_edge_arguments(words) or ["COMMAND"]
        command = cli.commands.get(name)
        if command is not None:
            unknown += [f"{name} {option}" for option in options(arguments) - options_of(command)]
        elif name != "COMMAND":
            unknown.append(name)
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_in_the_text_exist(page: Path) -> None:
    ours = set().union(*map(options_of, cli.commands.values()))
    others = set().union(*map(options, shell_commands(page)))  # such as pip's
    shown = {code.split()[0] for code in inline_code(page) if code.startswith("--")}
    assert shown - ours - others <= OPTIONS_OF_TOOLS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_resolve(page: Path) -> None:
    targets = (target.partition("#")[0] for target in links(page) if "://" not in target)
    assert [t for t in targets if t and not (page.parent / t).exists()] == []


def options(words: list[str]) -> set[str]:
    return {word.split("=")[0] for word in words if word.startswith("-") and word != "-"}


def sam2_edge_arguments(words: list[str]) -> list[str] | None:
    """The arguments of a `sam2-edge` command, also of one in a container."""
    names = [Path(word).name for word in words]
    if names[:1] == ["sam2-edge"] or (names[:2] == ["docker", "run"] and "sam2-edge" in names):
        return [word for word in words[names.index("sam2-edge") + 1 :] if word != "--verbose"]
    return None


def options_of(command: click.Command) -> set[str]:
    context = click.Context(command, **cli.context_settings)
    return options([o for p in command.get_params(context) for o in (*p.opts, *p.secondary_opts)])
