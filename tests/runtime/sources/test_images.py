"""Folders yield their images in natural order, and unusable images are refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_edge import SourceError
from sam2_edge.runtime.sources import FrameRange
from sam2_edge.runtime.sources.video import open_source


def test_images_are_sorted_by_the_numbers_in_their_names(tmp_path: Path) -> None:
    for name in ("10.png", "2.png", "1.JPG"):
        image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    source = open_source(tmp_path)
    assert [f.name for f in source] == ["1", "2", "10"]
    assert source.frames == 3


def image(path: Path, value: int = 7) -> None:
    cv2.imwrite(str(path), np.full((4, 4, 3), value, np.uint8))


def test_names_with_unusual_digits_are_sorted(tmp_path: Path) -> None:
    for name in ("1²3.png", "2.png", "frame 10 of 12.png", "٣.png"):
        image(tmp_path / name)
    assert [f.name for f in open_source(tmp_path)][:2] == ["1²3", "2"]


def test_images_that_differ_only_in_their_suffix_are_refused(tmp_path: Path) -> None:
    image(tmp_path / "1.png")
    image(tmp_path / "1.bmp", 9)
    with pytest.raises(SourceError, match=r"1\.bmp"):
        open_source(tmp_path)


def test_a_folder_named_like_an_image_is_ignored(tmp_path: Path) -> None:
    image(tmp_path / "1.png")
    (tmp_path / "old.png").mkdir()
    assert [f.name for f in open_source(tmp_path)] == ["1"]


def test_a_range_of_a_folder_keeps_its_numbers(clip_folder: Path) -> None:
    frames = list(open_source(clip_folder, FrameRange(4)))
    assert [(f.index, f.name) for f in frames] == [(4, "4"), (5, "5")]


def test_a_damaged_image_is_an_error_when_it_is_read(clip_folder: Path) -> None:
    (clip_folder / "2.png").write_bytes(b"\x89PNG broken")
    frames = iter(open_source(clip_folder))
    assert [next(frames).index for _ in range(2)] == [0, 1]
    with pytest.raises(SourceError, match=r"2\.png cannot be decoded"):
        next(frames)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no images; known suffixes: \.bmp"):
        open_source(tmp_path)
