"""What the README says works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import cv2
import pytest

from sam2_edge import Bundle
from sam2_edge.cli.main import cli
from tests.helpers.clips import moving_shapes

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(
    "code",
    EXAMPLES,
    ids=["tracking", "camera loop", "image", "compat video"],
)
def test_python_examples_run(
    code: str, small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = moving_shapes(4, (300, 480)).frames
    cv2.imwrite(str(tmp_path / "photo.jpg"), frames[0])
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (480, 300)
    )
    for frame in frames:
        writer.write(frame)
    writer.release()
    (tmp_path / "tiny").symlink_to(small_bundle.path)
    monkeypatch.chdir(tmp_path)
    # A camera is the only thing that a test machine has not got.
    for there, here in (("VideoCapture(0)", "VideoCapture('clip.avi')"), ('"0"', '"clip.avi"')):
        code = code.replace(there, here)
    exec(compile(code, "README", "exec"), {})


def test_every_option_that_is_shown_exists() -> None:
    known = {
        option
        for command in cli.commands.values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    assert len(shown) > 10
    assert shown - {"--system-site-packages"} <= known  # that one is an option of venv


def test_links_to_files_resolve() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)
