"""Runs commands in this process, on small clips."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sam2_edge.cli.main import cli, main
from tests.helpers.clips import moving_shapes, write_video

SCRIPT = Path(sys.executable).parent / "sam2-edge"

CLICK = ("--point", "34,38")
"""A click on the disc in the first frame of `moving_shapes`."""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line as a user does, in this process; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["sam2-edge", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


def call(*arguments: object) -> int:
    """Run the command line in this process; errors are raised."""
    return cli.main([str(argument) for argument in arguments], standalone_mode=False) or 0


def video(path: Path, frames: int = 8) -> Path:
    """Write `moving_shapes` as a video with 12 frames per second."""
    return write_video(path, moving_shapes(frames).frames)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
