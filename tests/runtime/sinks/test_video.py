"""Overlay videos show every frame or play in real time, and stay readable."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_edge import SinkError
from sam2_edge.runtime.sinks import video
from sam2_edge.runtime.sinks.video import OverlayVideo, RealTimeVideo
from tests.helpers.clips import count_frames
from tests.helpers.results import tracked_frame


def test_every_frame_shows_its_object(tmp_path: Path) -> None:
    sink = OverlayVideo(tmp_path / "o.avi", fps=12)
    for index in range(5):
        sink.write(*tracked_frame(index, size=(48, 64) if index < 4 else (100, 90)))
    sink.close()

    capture = cv2.VideoCapture(str(tmp_path / "o.avi"))
    pictures = [capture.read()[1] for _ in range(5)]
    assert not capture.read()[0]
    assert capture.get(cv2.CAP_PROP_FPS) == 12
    assert {p.shape for p in pictures} == {(48, 64, 3)}
    blue, _, red = pictures[0][40, 12].astype(int)
    assert blue - red > 40  # object 1 is sky blue
    assert np.abs(pictures[0][24, 60].astype(int) - 120).max() < 8


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".MP4"])
def test_every_container_can_be_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"o{suffix}"
    sink = OverlayVideo(path, fps=10)
    for index in range(7):
        sink.write(*tracked_frame(index))
    sink.close()
    assert count_frames(path) == 7


def test_a_video_on_a_disk_that_fills_up_stays_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = OverlayVideo(tmp_path / "o.mp4", fps=10)
    for index in range(3):
        sink.write(*tracked_frame(index))
    monkeypatch.setattr(video, "MIN_FREE_BYTES", 2**62)  # more than any disk has
    with pytest.raises(SinkError, match=r"o\.mp4: .* free on the disk"):
        sink.write(*tracked_frame(3))
    sink.close()
    assert count_frames(tmp_path / "o.mp4") == 3


def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"\.mp4, \.mkv, \.avi"):
        OverlayVideo(tmp_path / "o.gif", fps=5)


def test_a_video_of_a_camera_plays_in_real_time(tmp_path: Path) -> None:
    sink = RealTimeVideo(tmp_path / "video.mkv", fps=10)
    times = [0.0, 0.03, 0.06, 0.35, 0.7, 90.0, 90.1]  # too fast, too slow, and a gap
    for index, at in enumerate(times):
        sink.write(*tracked_frame(index, unix_s=1000.0 + at))
    sink.close()
    # 0 to 0.7 s, the gap as one second, and one more.
    assert count_frames(tmp_path / "video.mkv") == 8 + 10 + 1


def test_a_clock_that_is_set_back_does_not_stop_a_video(tmp_path: Path) -> None:
    sink = RealTimeVideo(tmp_path / "video.mkv", fps=10)
    for index in range(40):
        set_back = 600 if index >= 20 else 0
        sink.write(*tracked_frame(index, unix_s=1000.0 + 0.1 * index - set_back))
    sink.close()
    assert 38 <= count_frames(tmp_path / "video.mkv") <= 42
