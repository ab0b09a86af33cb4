"""Running commands in this process, and small clips to run them on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import pytest

from sam2_edge.cli.main import main
from tests.helpers.clips import moving_shapes

SCRIPT = Path(sys.executable).parent / "sam2-edge"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["sam2-edge", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


def video(path: Path, frames: int = 8) -> Path:
    """An .avi of equal shapes as `clip_folder`."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12, (128, 128))
    for frame in moving_shapes(frames).frames:
        writer.write(frame)
    writer.release()
    return path


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
