"""Cameras are opened by location, and files are read at their own frame rate."""

from __future__ import annotations

import cv2
import pytest

from sam2_edge import SourceError
from sam2_edge.runtime.sources import camera
from sam2_edge.runtime.sources.camera import Pace, is_camera, open_camera
from tests.helpers.clock import FakeTime


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("77", "77 cannot be opened as a camera; check that it is connected"),
        ("/dev/video77", "cannot be opened as a camera"),
        ("http://127.0.0.1:9/x", "cannot be opened as a camera"),
        ("nowhere.mp4", "nowhere.mp4 does not exist"),
    ],
)
def test_the_error_names_a_source_that_cannot_be_opened(location: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_camera(location)


@pytest.mark.skipif(
    cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER), reason="OpenCV has GStreamer here"
)
@pytest.mark.parametrize("location", ["csi", "csi:1", "videotestsrc ! videoconvert ! appsink"])
def test_pipelines_need_an_opencv_with_gstreamer(location: str) -> None:
    with pytest.raises(SourceError, match="needs GStreamer, which this OpenCV .* JetPack's own"):
        open_camera(location)


def test_cameras_are_distinguished_from_files() -> None:
    cameras = ["0", "/dev/video0", "rtsp://camera/stream", "csi", "csi:1", "a ! appsink"]
    files = ["clip.mp4", "frames", "/data/0", "csi.mp4", "synth"]
    assert all(map(is_camera, cameras))
    assert not any(map(is_camera, files))


def test_a_reader_is_paced_without_catching_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime()
    monkeypatch.setattr(camera, "time", clock)
    pace = Pace(50)
    for _ in range(4):
        pace.wait()
    assert clock.sleeps == pytest.approx([0.02] * 3)
    clock.now += 0.2
    pace.wait()
    assert len(clock.sleeps) == 3  # late: not held back
    pace.wait()
    assert clock.sleeps[3:] == pytest.approx([0.02])
