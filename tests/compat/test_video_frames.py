"""Frames of videos and folders, in any order."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_edge import SourceError
from sam2_edge.compat.video.frames import LOOKBACK, open_frames
from tests.helpers.pictures import WIDE, jpeg_with_orientation


def write_video(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (96, 64))
    for index in range(frames):
        frame = np.full((64, 96, 3), 4 * index, np.uint8)
        writer.write(cv2.putText(frame, str(index), (9, 40), 0, 1, (255, 255, 255)))
    writer.release()
    return path


def test_a_video_has_random_access(tmp_path: Path) -> None:
    count = 3 * LOOKBACK
    frames = open_frames(write_video(tmp_path / "clip.mp4", count), 32)
    assert len(frames) == count
    assert frames.size == (64, 96)
    forward = [frames.image(i).copy() for i in range(count)]
    assert all((a != b).any() for a, b in pairwise(forward))
    for index in [*reversed(range(count)), *np.random.default_rng(0).permutation(count)]:
        np.testing.assert_array_equal(frames.image(int(index)), forward[int(index)])


def test_a_video_without_usable_times_is_decoded_from_its_start(tmp_path: Path) -> None:
    frames = open_frames(write_video(tmp_path / "clip.mp4", 40), 32)
    forward = [frames.image(i).copy() for i in range(40)]
    frames._numbers = {}
    for index in (30, 3, 0, 39):
        np.testing.assert_array_equal(frames.image(index), forward[index])


def test_other_images_are_ignored_in_a_folder_with_jpegs(tmp_path: Path) -> None:
    for name in ("10.jpg", "9.jpg", "9.png", "mask.png"):
        shade = int(name.split(".")[0]) if name[0].isdigit() else 255
        cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), shade, np.uint8))
    frames = open_frames(tmp_path, 32)
    assert [int(frames.image(i).mean().round()) for i in range(len(frames))] == [9, 10]


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), WIDE)
    (tmp_path / "._1.jpg").write_bytes(b"Mac OS X")
    assert len(open_frames(tmp_path, 32)) == 1


def test_images_follow_the_rules_of_the_reader(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg_with_orientation(WIDE, 6))
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((8, 8), 900, np.uint16))
    assert open_frames(tmp_path, 32).size == (7, 4)
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(SourceError, match="more than 8 bits"):
        open_frames(tmp_path, 32)
