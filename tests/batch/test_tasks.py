"""Which videos a batch consists of, and what is said about bad lists."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2_edge.batch.tasks import VideoTask, find_tasks
from sam2_edge.errors import SourceError
from sam2_edge.runtime.sources import FrameRange


def _file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def _image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    return path


def test_a_folder_gives_videos_and_folders_of_images_with_what_is_beside_them(
    tmp_path: Path,
) -> None:
    _file(tmp_path / "b.mp4")
    _file(tmp_path / "b.json")
    _image(tmp_path / "day/a/000.png")
    _image(tmp_path / "day/a.png")
    _file(tmp_path / ".hidden/c.mp4")
    assert find_tasks([tmp_path]) == [
        VideoTask("b", str(tmp_path / "b.mp4"), prompts=str(tmp_path / "b.json")),
        VideoTask("day/a", str(tmp_path / "day/a"), mask=str(tmp_path / "day/a.png")),
    ]


def test_a_list_gives_sources_relative_to_it_and_urls_as_they_are(tmp_path: Path) -> None:
    prompt = {"frame": 0, "object": 1, "points": [[3, 4]]}
    lines = [
        {"source": "clips/a.mp4", "prompts": [prompt]},
        {"source": "s3://bucket/b.mp4", "mask": "s3://bucket/b.png", "name": "x/y", "start": 3},
    ]
    path = tmp_path / "list.jsonl"
    path.write_text("\n\n".join(map(json.dumps, lines)))
    assert find_tasks([path]) == [
        VideoTask("a", str(tmp_path / "clips/a.mp4"), prompts=(prompt,)),
        VideoTask("x/y", "s3://bucket/b.mp4", mask="s3://bucket/b.png", frames=FrameRange(3, None)),
    ]


def test_a_csv_list_means_the_same(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("source,mask,start,stop\na.mp4,a.png,2,9\nb.mp4,b.png,,\n")
    assert [task.frames for task in find_tasks([path])] == [FrameRange(2, 9), FrameRange()]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2 is not JSON"),
        ("[]", r"line 2: the line: "),
        ('{"source": ""}', r"line 2: source: "),
        ('{"source": "b.mp4", "point": [1, 2]}', r"line 2: point: Extra"),
        ('{"source": "b.mp4"}', r"line 2: give either prompts or mask"),
        ('{"source": "b.mp4", "mask": "m", "start": 4, "stop": 4}', r"stop 4 is not after start 4"),
        ('{"source": "b.mp4", "mask": "m", "name": "../b"}', r"name '\.\./b' is no folder below"),
        ('{"source": "b.mp4", "mask": "m", "name": "/b"}', r"name '/b' is no folder below"),
        ('{"source": "x/a.mp4", "mask": "m"}', r"would both be named a; give names"),
    ],
)
def test_a_bad_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"source": "a.mp4", "mask": "a.png"}\n' + line)
    with pytest.raises(SourceError, match=message):
        find_tasks([path])


def test_nothing_to_track_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no video and no folder of images; .*\.mp4"):
        find_tasks([tmp_path])
    with pytest.raises(SourceError, match="nowhere does not exist"):
        find_tasks([tmp_path / "nowhere"])
