"""Outputs rotate by size and age, and only outputs of the same kind are deleted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sam2_edge import SinkError
from sam2_edge.runtime.sinks import rotation
from sam2_edge.runtime.sinks.jsonl import JsonLines
from sam2_edge.runtime.sinks.masks import MaskFolder
from sam2_edge.runtime.sinks.rotation import RotatingSink, RotationPolicy
from tests.helpers.clock import FakeTime
from tests.helpers.results import tracked_frame


def write_lines(folder: Path, policy: RotationPolicy, count: int) -> None:
    sink = RotatingSink(folder, "results", ".jsonl", JsonLines, policy)
    for index in range(count):
        sink.write(*tracked_frame(index))
    sink.close()


def test_a_large_file_is_followed_by_a_new_one_and_the_oldest_are_deleted(tmp_path: Path) -> None:
    write_lines(tmp_path / "out", RotationPolicy(2000, 3600, 7000), 400)
    files = sorted((tmp_path / "out").iterdir())
    assert 2 <= len(files) <= 5
    assert sum(f.stat().st_size for f in files) < 7000 + 2 * 2000 + 400
    lines = [line for file in files for line in file.read_text().splitlines()]
    seen = [json.loads(line)["frame"] for line in lines]
    assert seen == [index for index in range(seen[0], 400) for _ in range(2)]
    assert seen[0] > 0


def test_an_old_folder_is_followed_by_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeTime()
    monkeypatch.setattr(rotation, "time", clock)
    sink = RotatingSink(tmp_path, "masks", "", MaskFolder, RotationPolicy(2**30, 60, 2**30))
    for index in range(3):
        sink.write(*tracked_frame(index))
        clock.now += 40
    sink.close()
    assert [len(list(folder.iterdir())) for folder in sorted(tmp_path.iterdir())] == [2, 1]


def test_what_cannot_be_deleted_now_is_deleted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(_: Path) -> None:
        raise OSError(24, "Too many open files")

    sink = RotatingSink(tmp_path, "masks", "", MaskFolder, RotationPolicy(1, 60, 1))
    with monkeypatch.context() as patch:
        patch.setattr(rotation.shutil, "rmtree", busy)
        for index in range(3):
            sink.write(*tracked_frame(index))
        assert len(list(tmp_path.iterdir())) == 3
    sink.write(*tracked_frame(3))
    sink.close()
    assert [next(f.iterdir()).name for f in tmp_path.iterdir()] == ["00003.png"]


def test_foreign_files_are_kept_and_numbers_continue(tmp_path: Path) -> None:
    foreign = [tmp_path / "results-final.jsonl", tmp_path / "results-1.jsonl"]
    for path in foreign:
        path.write_text("mine")
    for _ in range(3):
        write_lines(tmp_path, RotationPolicy(500, 3600, 5000), 12)
    own = sorted(set(tmp_path.iterdir()) - set(foreign))
    numbers = [int(path.name.split("-")[1]) for path in own]
    assert all(path.read_text() == "mine" for path in foreign)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert numbers[0] > 0


def test_limits_must_be_positive_and_the_folder_must_not_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="keep_bytes is 0; give more than 0"):
        RotationPolicy(1, 1.0, 0)
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="cannot be created"):
        write_lines(tmp_path / "file" / "x", RotationPolicy(1, 1, 1), 0)
