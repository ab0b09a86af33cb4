"""A thread that reads a camera and reopens it after failures.

By default only the latest frame is kept, so that a slow model never falls behind a live camera.
With `every_frame` the reader waits instead.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sam2_edge.errors import SourceError
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.sources import SourceFrame
from sam2_edge.runtime.sources.camera import Camera

STALL_S = 5.0
"""Time without a frame after which a camera is reopened."""

OPENING_S = 30.0
"""Additional time allowed for opening a camera."""

FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.5, 30.0
"""Delay before a camera is reopened; doubled after each failure."""

MAX_WAITING_FRAMES = 4
"""Length of the queue of frames to track with `every_frame`."""

MAX_HUNG_READERS = 3
"""Limit on abandoned readers: one that hangs in a driver cannot be stopped, only replaced."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class CaptureCounts:
    """Events since the start.

    Attributes:
        captured: Valid frames.
        dropped: Captured frames that a later one replaced before they were tracked.
        blank: Single-color frames, which are skipped.
        corrupt: Frames with a wrong shape or dtype, which are skipped.
        reconnects: Times the camera was reopened.
        stalls: Times the camera delivered no frame for too long.
        size_changes: Times the frame size changed.
    """

    captured: int = 0
    dropped: int = 0
    blank: int = 0
    corrupt: int = 0
    reconnects: int = 0
    stalls: int = 0
    size_changes: int = 0


class _Reader(threading.Thread):
    """A reading thread; once abandoned, its frames are ignored."""

    def __init__(self, read: Callable[[_Reader], None]) -> None:
        super().__init__(target=lambda: read(self), name="sam2_edge reader", daemon=True)
        self.abandoned = False


class Capture:
    """Reads frames in a thread between `start` and `close`.

    Args:
        open_camera: Called in that thread, and again after every failure.
        every_frame: Whether the reader waits rather than dropping frames.
        stall_s: Seconds without a frame after which the camera is reopened.

    Attributes:
        counts: Events since the start.
    """

    def __init__(
        self,
        open_camera: Callable[[], Camera],
        *,
        every_frame: bool = False,
        stall_s: float = STALL_S,
    ) -> None:
        self.open_camera = open_camera
        self.every_frame = every_frame
        self.stall_s = stall_s
        self.counts = CaptureCounts()
        self._changed = threading.Condition()
        self._frames: deque[SourceFrame] = deque()
        self._reader = _Reader(self._run)
        self._hung: list[_Reader] = []
        self._alive_s = 0.0
        self._over = False
        self._fault: SourceError | None = None
        self._size: tuple[int, int] | None = None
        self._ever_opened = False
        self._is_file = False
        self._backoff_s = FIRST_BACKOFF_S

    def start(self) -> None:
        """Start reading."""
        self._alive_s = time.monotonic()
        self._reader.start()

    def next(self, timeout_s: float) -> SourceFrame | None:
        """Wait for the next frame; None if none arrives in time or the source has ended.

        Frames are numbered from 0, including dropped ones.

        Raises:
            SourceError: If the source could not be opened initially, or a file is damaged.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._over, timeout_s)
            if self._frames:
                frame = self._frames.popleft()
                self._changed.notify_all()
                return frame
            if self._fault is not None:
                raise self._fault
        self._replace_stalled_reader()
        return None

    @property
    def ended(self) -> bool:
        """Whether there will be neither another frame nor an error."""
        with self._changed:
            return self._over and not self._frames and self._fault is None

    def close(self) -> None:
        """Stop reading; a reader that hangs is abandoned."""
        with self._changed:
            self._over = self._reader.abandoned = True
            self._changed.notify_all()
        if self._reader.is_alive():
            self._reader.join(timeout=1.0)

    def _replace_stalled_reader(self) -> None:
        silent_s = time.monotonic() - self._alive_s
        if silent_s < self.stall_s or self._over or self._is_file:
            return
        self._hung = [reader for reader in self._hung if reader.is_alive()]
        if len(self._hung) >= MAX_HUNG_READERS:
            return
        with self._changed:
            self.counts.stalls += 1
            self._reader.abandoned = True
            self._hung.append(self._reader)
            self._reader = _Reader(self._run)
            self._alive_s = time.monotonic()
        _log.warning("no frame for %.1f s; reopening the camera", silent_s)
        self._reader.start()

    def _run(self, reader: _Reader) -> None:
        """Open and read the camera, with exponential backoff after failures, until the end."""
        while not reader.abandoned:
            camera = self._open(reader)
            if camera is not None:
                try:
                    self._read(camera, reader)
                finally:
                    camera.close()
            if reader.abandoned or self._over:
                return
            _log.warning("the camera delivers no frames; reopening in %.1f s", self._backoff_s)
            with self._changed:
                self._alive_s = time.monotonic() + self._backoff_s  # waiting is not a stall
                self._changed.wait_for(lambda: reader.abandoned or self._over, self._backoff_s)
            self._backoff_s = min(2 * self._backoff_s, MAX_BACKOFF_S)

    def _open(self, reader: _Reader) -> Camera | None:
        self._alive_s = time.monotonic() + OPENING_S
        try:
            camera = self.open_camera()
        except Exception as error:  # noqa: BLE001 # a caller's own function may raise anything
            _log.info("the camera cannot be opened: %s", error)
            with self._changed:
                if not self._ever_opened and not reader.abandoned:
                    self._end(_as_source_error(error))
            return None
        with self._changed:
            if not reader.abandoned:
                self.counts.reconnects += int(self._ever_opened)
                self._ever_opened, self._is_file = True, camera.ends
                self._alive_s = time.monotonic()
                return camera
        camera.close()  # outside the lock, since the driver may hang
        return None

    def _read(self, camera: Camera, reader: _Reader) -> None:
        """Read until the camera fails, a file ends or the reader is abandoned."""
        last_good_s = time.monotonic()
        while not reader.abandoned:
            picture, fault = None, None
            try:
                picture = camera.read()
            except Exception as error:  # noqa: BLE001 # a caller's own camera may raise anything
                fault = _as_source_error(error)
            with self._changed:
                if reader.abandoned or self._over:
                    return
                if picture is None:
                    if camera.ends:
                        self._end(fault)
                    elif fault is not None:
                        _log.warning("%s", fault)
                    return
                if not self._is_good(picture, camera):
                    # A camera may be dark for a while; reopen it if it stays dark.
                    if time.monotonic() - last_good_s > self.stall_s and not camera.ends:
                        return
                    self._alive_s = time.monotonic()
                    continue
                self._take(picture)
                last_good_s = self._alive_s
                if self.every_frame:
                    self._changed.wait_for(
                        lambda: (
                            len(self._frames) < MAX_WAITING_FRAMES or reader.abandoned or self._over
                        )
                    )

    def _end(self, fault: SourceError | None) -> None:
        self._over, self._fault = True, fault
        self._changed.notify_all()

    def _is_good(self, picture: Frame, camera: Camera) -> bool:
        """Return whether a frame is valid. A file's blank frames are, to keep its numbering."""
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            self.counts.corrupt += 1
            return False
        if camera.ends:
            return True
        # Every 16th row and column suffices, at 1/256 of the cost.
        sparse = picture[::16, ::16]
        if sparse.size == 0 or (sparse == sparse[0, 0]).all():
            self.counts.blank += 1
            return False
        return True

    def _take(self, picture: Frame) -> None:
        size = (picture.shape[1], picture.shape[0])
        if self._size not in (None, size):
            self.counts.size_changes += 1
            _log.warning("the frame size changed from %s x %s to %s x %s", *self._size, *size)
        self._size = size
        self._alive_s = time.monotonic()
        self._backoff_s = FIRST_BACKOFF_S
        if not self.every_frame and self._frames:
            self._frames.clear()
            self.counts.dropped += 1
        index = self.counts.captured
        frame = SourceFrame(index, f"{index:08d}", picture, time.time(), self._alive_s)
        self._frames.append(frame)
        self.counts.captured += 1
        self._changed.notify_all()


def _as_source_error(error: Exception) -> SourceError:
    if isinstance(error, SourceError):
        return error
    return SourceError(f"the camera failed with {type(error).__name__}: {error}")
