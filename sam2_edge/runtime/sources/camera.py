"""Cameras: by number or device, CSI, network streams, GStreamer pipelines, files.

Opening and reading only; what happens when a camera fails is in `capture.py`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, cast

import cv2

from sam2_edge.errors import SourceError
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.sources import SourceFrame
from sam2_edge.runtime.sources.video import open_source

OPEN_TIMEOUT_MS = 10_000
READ_TIMEOUT_MS = 4_000
"""For network streams; without them FFmpeg waits for minutes. Reading gives up before `capture.py`
would take it for a hung driver."""

CSI_PIPELINE = (
    "nvarguscamerasrc sensor-id={sensor} ! "
    "video/x-raw(memory:NVMM), width=1280, height=720, framerate=30/1 ! "
    "nvvidconv ! video/x-raw, format=BGRx ! videoconvert ! video/x-raw, format=BGR ! "
    "appsink drop=true max-buffers=1"
)
"""A Jetson's CSI camera through its own capture service (NVIDIA, "Accelerated GStreamer")."""


class Camera(Protocol):
    """An open camera. ends: it is a file, whose last frame is the end of the work and no fault."""

    ends: bool

    def read(self) -> Frame | None:
        """The next frame, waiting for it; None when there is none."""
        ...

    def close(self) -> None:
        """Give the device back."""
        ...


def open_camera(location: str, *, paced: bool = True) -> Camera:
    """Open what `location` names.

    - a number, /dev/video0 or /dev/v4l/by-id/...: a camera of this machine;
    - csi or csi:1: a CSI camera of a Jetson;
    - rtsp://, http:// and so on: a stream;
    - a GStreamer pipeline that ends in appsink;
    - a video file or a folder of images, at its own rate, or without `paced` as fast as possible.

    Raises SourceError when it cannot be opened.
    """
    if match := re.fullmatch(r"csi(?::(\d+))?", location):
        return _gstreamer(CSI_PIPELINE.format(sensor=match[1] or 0), location)
    if " ! " in location:
        return _gstreamer(location, location)
    if is_camera(location):
        return DeviceCamera(_opened(location), location)
    return FileCamera(location, paced=paced)


def is_camera(location: str) -> bool:
    """Whether this names a camera of this machine or on the network, rather than a file."""
    device = location.isdecimal() or location.startswith("/dev/")
    return device or re.match(r"[a-z][a-z0-9+.-]*://", location) is not None


def is_live(location: str) -> bool:
    """Whether frames of this come whether or not somebody takes them: anything but a file."""
    pipeline = re.fullmatch(r"csi(:\d+)?", location) is not None or " ! " in location
    return pipeline or is_camera(location)


class DeviceCamera:
    """What OpenCV has opened."""

    ends = False

    def __init__(self, capture: cv2.VideoCapture, location: str) -> None:
        if not capture.isOpened():
            raise SourceError(
                f"{location} cannot be opened as a camera; check that it is connected and that no "
                "other program uses it, or give another number or URL"
            )
        self._capture = capture

    def read(self) -> Frame | None:
        """See `Camera.read`."""
        try:
            ok, picture = self._capture.read()
        except cv2.error:  # a driver that went away
            return None
        return cast("Frame", picture) if ok else None

    def close(self) -> None:
        """See `Camera.close`."""
        self._capture.release()


class FileCamera:
    """Frames of a file or folder, at their own rate or as fast as they are read."""

    ends = True

    def __init__(self, location: str, *, paced: bool) -> None:
        source = open_source(Path(location))
        self._frames: Iterator[SourceFrame] = iter(source)
        self._pace = Pace(source.fps if paced else None)

    def read(self) -> Frame | None:
        """See `Camera.read`."""
        self._pace.wait()
        frame = next(self._frames, None)
        return None if frame is None else frame.picture

    def close(self) -> None:
        """Nothing is held open between frames but the file itself."""
        cast("Callable[[], None]", getattr(self._frames, "close", _nothing))()


class Pace:
    """Holds a reader to a rate; a reader that is late is not made to hurry. fps: None for none."""

    def __init__(self, fps: float | None) -> None:
        self._step = 0.0 if fps is None else 1 / fps
        self._due = time.monotonic()

    def wait(self) -> None:
        """Wait until the next frame is due."""
        now = time.monotonic()
        if self._due > now:
            time.sleep(self._due - now)
        self._due = max(now, self._due) + self._step


def _opened(location: str) -> cv2.VideoCapture:
    if location.isdecimal():
        return cv2.VideoCapture(int(location))
    if location.startswith("/dev/"):
        return cv2.VideoCapture(location)
    timeouts = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        OPEN_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        READ_TIMEOUT_MS,
    ]
    return cv2.VideoCapture(location, cv2.CAP_FFMPEG, timeouts)


def _gstreamer(pipeline: str, location: str) -> DeviceCamera:
    if not has_gstreamer():
        raise SourceError(
            f"{location} needs GStreamer, which this OpenCV {cv2.__version__} is built without; on "
            "a Jetson use JetPack's own OpenCV (a virtual environment with "
            "--system-site-packages), elsewhere build OpenCV with GStreamer"
        )
    return DeviceCamera(cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER), location)


def has_gstreamer() -> bool:
    """Whether OpenCV can open GStreamer pipelines."""
    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))


def _nothing() -> None:
    """Iterators that are no generators have nothing to close."""
