"""Opens and reads cameras, network streams, GStreamer pipelines and files.

streaming/capture.py recovers from failures.
"""

from __future__ import annotations

import time
from typing import Protocol, cast

import cv2

from sam2_edge.errors import SourceError
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.sources.location import Location, SourceKind, csi_sensor, locate
from sam2_edge.runtime.sources.video import open_source

OPEN_TIMEOUT_MS = 10_000
READ_TIMEOUT_MS = 4_000
"""Timeouts of network streams; FFmpeg's defaults are minutes. Reads time out before the capture
thread counts as stalled."""

CSI_PIPELINE = (
    "nvarguscamerasrc sensor-id={sensor} ! "
    "video/x-raw(memory:NVMM), width=1280, height=720, framerate=30/1 ! "
    "nvvidconv ! video/x-raw, format=BGRx ! videoconvert ! video/x-raw, format=BGR ! "
    "appsink drop=true max-buffers=1"
)
"""Pipeline of a Jetson's CSI camera (NVIDIA, "Accelerated GStreamer")."""


class Camera(Protocol):
    """An open camera.

    Attributes:
        ends: Whether it is a file, for which no more frames means the end rather than a failure.
    """

    ends: bool

    def read(self) -> Frame | None:
        """Wait for the next frame, [H, W, 3] uint8 BGR; None if the device fails or a file ends."""
        ...

    def close(self) -> None:
        """Release the device."""
        ...


def open_camera(location: str, *, paced: bool = True) -> Camera:
    """Open a camera, a stream or a file.

    Args:
        location: A number, /dev/video0 or /dev/v4l/by-id/... for a local camera; csi or csi:1 for a
            Jetson's CSI camera; a URL such as rtsp://... for a stream; a GStreamer pipeline that
            ends in appsink; or a video file or a folder of images.
        paced: Whether to read a file at its own frame rate rather than as fast as possible.

    Raises:
        SourceError: If it cannot be opened.
    """
    place = locate(location)
    if not place.is_camera:
        return FileCamera(location, paced=paced)
    if place.kind in (SourceKind.CSI, SourceKind.PIPELINE) and not has_gstreamer():
        raise SourceError(
            f"{place} needs GStreamer, which this OpenCV {cv2.__version__} is built without; on a "
            "Jetson use JetPack's own OpenCV (a virtual environment with --system-site-packages), "
            "elsewhere build OpenCV with GStreamer"
        )
    try:
        capture = _open_capture(place)
    except (cv2.error, OverflowError, UnicodeError):
        capture = None  # a number or a name that no camera can have
    if capture is None or not capture.isOpened():
        raise SourceError(
            f"{place} cannot be opened as a camera; check that it is connected and that no other "
            "program uses it, or give another number or URL"
        )
    return DeviceCamera(capture)


def _open_capture(place: Location) -> cv2.VideoCapture:
    text = place.text
    text.encode()  # OpenCV crashes on names that are not UTF-8
    if place.kind is SourceKind.CSI:
        text = CSI_PIPELINE.format(sensor=csi_sensor(place))
        return cv2.VideoCapture(text, cv2.CAP_GSTREAMER)
    if place.kind is SourceKind.PIPELINE:
        return cv2.VideoCapture(text, cv2.CAP_GSTREAMER)
    if place.kind is SourceKind.NUMBER:
        return cv2.VideoCapture(int(text))
    if place.kind is SourceKind.DEVICE:
        return cv2.VideoCapture(str(place.path.resolve()), cv2.CAP_V4L2)
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS]
    timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS]
    return cv2.VideoCapture(text, cv2.CAP_FFMPEG, timeouts)


def is_camera(location: str) -> bool:
    """Return whether a location is a camera, a stream or a pipeline rather than a file."""
    return locate(location).is_camera


def has_gstreamer() -> bool:
    """Return whether OpenCV can open GStreamer pipelines."""
    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))


class DeviceCamera:
    """A camera or stream that OpenCV reads."""

    ends = False

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture

    def read(self) -> Frame | None:
        """Wait for the next frame; None if the device fails."""
        try:
            ok, picture = self._capture.read()
        except cv2.error:  # the device was disconnected
            return None
        return cast("Frame", picture) if ok else None

    def close(self) -> None:
        """Release the device."""
        self._capture.release()


class FileCamera:
    """A file or folder read like a camera, at its own frame rate or as fast as possible."""

    ends = True

    def __init__(self, location: str, *, paced: bool) -> None:
        source = open_source(location)
        self._frames = iter(source)
        self._pace = Pace(source.fps if paced else None)

    def read(self) -> Frame | None:
        """Return the next frame when it is due; None at the end."""
        self._pace.wait()
        frame = next(self._frames, None)
        return None if frame is None else frame.picture

    def close(self) -> None:
        """Close the file."""
        self._frames.close()


class Pace:
    """Limits a reader to a frame rate, without catching up after a delay.

    Args:
        fps: Frames per second; None for no limit.
    """

    def __init__(self, fps: float | None) -> None:
        self._step_s = 0.0 if fps is None else 1 / fps
        self._due_s = time.monotonic()

    def wait(self) -> None:
        """Wait until the next frame is due."""
        now = time.monotonic()
        if self._due_s > now:
            time.sleep(self._due_s - now)
        self._due_s = max(now, self._due_s) + self._step_s
