"""Videos yield their frames with exact numbers, and an error if they are truncated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sam2_edge import SourceError
from sam2_edge.runtime.sources import FrameRange
from sam2_edge.runtime.sources.video import open_source
from tests.helpers.clips import Clip, moving_shapes, write_video


@pytest.fixture
def video(clip: Clip, tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.avi", clip.frames, fps=10)


def half(path: Path) -> Path:
    """The first half of a file's bytes, as a file beside it."""
    data = path.read_bytes()
    cut = path.with_name(f"cut{path.suffix}")
    cut.write_bytes(data[: len(data) // 2])
    return cut


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_containers_with_key_frames_yield_every_frame(tmp_path: Path, name: str) -> None:
    clip = moving_shapes(9, (72, 96))
    source = open_source(write_video(tmp_path / name, clip.frames, codec="mp4v"))
    pictures = [f.picture for f in source]
    assert source.frames == len(pictures) == 9
    assert pictures[0].shape == (72, 96, 3)
    difference = np.abs(np.stack(pictures).astype(int) - clip.frames)
    assert difference.mean(axis=(1, 2, 3)).max() < 8


def test_a_video_yields_its_frames(video: Path, clip: Clip) -> None:
    source = open_source(video)
    frames = list(source)
    assert (source.frames, source.fps, source.start) == (24, 10.0, 0)
    assert [f.index for f in frames] == list(range(24))
    assert frames[3].name == "00003"
    difference = np.abs(frames[3].picture.astype(int) - clip.frames[3]).mean()
    assert difference < 6  # JPEG is lossy; another frame differs by more
    assert difference < np.abs(frames[3].picture.astype(int) - clip.frames[9]).mean()


def test_a_range_keeps_the_numbers_of_the_source(video: Path) -> None:
    whole = list(open_source(video))
    source = open_source(video, FrameRange(5, 9))
    frames = list(source)
    assert (source.frames, source.start) == (4, 5)
    assert [f.index for f in frames] == [5, 6, 7, 8]
    np.testing.assert_array_equal(frames[0].picture, whole[5].picture)
    assert open_source(video, FrameRange(20, 999)).frames == 4


@pytest.mark.parametrize("start", [24, 1000])
def test_a_start_past_the_end_is_refused(video: Path, start: int) -> None:
    with pytest.raises(SourceError, match=f"frame {start} is past the end .* frames 0 to 23"):
        list(open_source(video, FrameRange(start)))


def test_a_truncated_video_yields_its_frames_and_then_an_error(video: Path) -> None:
    # A declared count with fewer frames behind it: the index of an AVI stands at its end.
    cut = half(video)
    frames = []
    with pytest.raises(
        SourceError, match=r"cut\.avi ends after \d+ frames and is .*--frames 0:\d+"
    ):
        for frame in open_source(cut):
            frames.append(frame)  # noqa: PERF402 # the frames before the error count
    assert 2 < len(frames) < 24


def test_a_range_before_the_end_of_a_truncated_video_is_read(video: Path) -> None:
    assert [f.index for f in open_source(half(video), FrameRange(2, 5))] == [2, 3, 4]


def test_a_range_past_the_end_of_a_truncated_video_suggests_no_impossible_range(
    video: Path,
) -> None:
    with pytest.raises(SourceError, match=r"ends after \d+ frames") as refused:
        list(open_source(half(video), FrameRange(20)))
    assert "--frames 20:" not in str(refused.value)  # an end before its start


def test_an_mp4_that_lacks_its_index_is_refused(clip: Clip, tmp_path: Path) -> None:
    cut = half(write_video(tmp_path / "clip.mp4", clip.frames, codec="mp4v"))
    with pytest.raises(SourceError, match=r"cut\.mp4 cannot be opened"):
        open_source(cut)


@pytest.mark.parametrize("content", [b"", b"no video", bytes(5000)])
def test_a_file_that_is_not_a_video_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(SourceError, match=r"bad\.mp4 cannot be opened"):
        open_source(tmp_path / "bad.mp4")


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        open_source(tmp_path / "none.mp4")
