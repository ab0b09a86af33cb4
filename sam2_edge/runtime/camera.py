"""A camera of this machine or on the network, through OpenCV: frames as they come, without end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast

import cv2

from sam2_edge.errors import SourceError
from sam2_edge.runtime.frames import Frame
from sam2_edge.runtime.sources import SourceFrame


def is_camera(location: str) -> bool:
    """Whether this names a camera: a number, or a URL such as rtsp://host/stream."""
    return location.isdecimal() or re.match(r"[a-z][a-z0-9+.-]*://", location) is not None


class Camera:
    """A camera by its number or URL.

    Raises SourceError when it cannot be opened.
    """

    def __init__(self, location: str) -> None:
        self._capture = cv2.VideoCapture(int(location) if location.isdecimal() else location)
        if not self._capture.isOpened():
            raise SourceError(
                f"{location} cannot be opened as a camera; check that it is connected and that no "
                "other program uses it, or give another number or URL"
            )

    def __iter__(self) -> Iterator[SourceFrame]:
        """Frames until the camera gives none, or the caller stops; the camera is released then."""
        index = 0
        try:
            while True:
                ok, picture = self._capture.read()
                if not ok:
                    return
                yield SourceFrame(index, f"{index:05d}", cast("Frame", picture))
                index += 1
        finally:
            self._capture.release()
