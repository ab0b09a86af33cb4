"""Calibration frames from folders, videos and cameras."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_edge import SourceError
from sam2_edge.calibration.frames import CalibrationFrames, collect_frames
from tests.helpers.models import IMAGE_SIZE, frames_of_a_clip


def test_frames_have_the_encoders_format_and_are_numbered(
    calibration_frames: CalibrationFrames,
) -> None:
    inputs = list(calibration_frames)
    assert calibration_frames.source == "data"
    assert calibration_frames.numbers == tuple(range(16))
    assert {(x["image"].shape, x["image"].dtype.name) for x in inputs} == {
        ((1, IMAGE_SIZE, IMAGE_SIZE, 3), "uint8")
    }
    assert np.any(inputs[0]["image"] != inputs[15]["image"])


def test_frames_are_taken_evenly(tmp_path: Path) -> None:
    folder = frames_of_a_clip(tmp_path / "data", frames=49)
    found = collect_frames(folder, tmp_path, size=64, count=16)
    assert found.numbers == tuple(range(0, 48, 3))


def test_too_few_frames_and_frames_of_one_color_are_refused(tmp_path: Path) -> None:
    folder = frames_of_a_clip(tmp_path / "data", frames=16)
    with pytest.raises(SourceError, match="8 calibration frames; give 16 or more"):
        collect_frames(folder, tmp_path, size=64, count=8)
    cv2.imwrite(str(folder / "000.png"), np.full((50, 50, 3), 7, np.uint8))
    with pytest.raises(SourceError, match=r"15 frames .*\(1 more are of one color\), 16 are"):
        collect_frames(folder, tmp_path, size=64, count=16)


@pytest.fixture
def network_camera(tmp_path: Path) -> Iterator[str]:
    """The URL of a stream of 250 frames, from a server on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()
    writer = cv2.VideoWriter(
        str(folder / "live.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 48)
    )
    rng = np.random.default_rng(0)
    for _ in range(250):
        writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/live.avi"
        server.shutdown()


def test_frames_come_from_a_camera_by_its_url(network_camera: str, tmp_path: Path) -> None:
    found = collect_frames(network_camera, tmp_path, size=64, count=16)
    assert found.source == network_camera
    assert found.numbers == tuple(range(0, 240, 15))


def test_a_missing_camera_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="97 cannot be opened as a camera; check that it is"):
        collect_frames("97", tmp_path, size=64, count=16)
