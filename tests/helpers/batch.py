"""Lists of short videos for batches, and their results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.helpers.clips import moving_shapes, write_video

CLICK = {"frame": 0, "object": 1, "points": [[34, 38]]}
"""A click on the disc in the first frame of `moving_shapes`."""


def write_list(folder: Path, videos: int, frames: int = 6) -> Path:
    """Write videos v0, v1, ... and list.jsonl, which has a click in each."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(videos):
        name = f"v{number}.mp4"
        write_video(folder / name, moving_shapes(frames + number).frames)
        lines.append({"source": name, "prompts": [CLICK]})
    path = folder / "list.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def add_line(path: Path, **line: Any) -> None:
    """Append a line to a list."""
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def masks_of(output: Path) -> dict[str, bytes]:
    """Every mask and COCO file below an output, by relative path."""
    found = [*output.rglob("*.png"), *output.rglob("coco.json")]
    return {str(path.relative_to(output)): path.read_bytes() for path in found}
