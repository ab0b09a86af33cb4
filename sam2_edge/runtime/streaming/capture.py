"""A thread that reads a camera, and opens it again whenever it fails.

The latest-frame rule keeps one frame and drops those that nobody took, so that a slow model works
on the present; the every-frame rule keeps a few and lets the reader wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sam2_edge.errors import SourceError
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.sources.camera import Camera

STALL_S = 5.0
"""A camera that gives no frame for so long is opened again."""

OPENING_S = 30.0
"""Opening a camera may take longer; after so long it counts as hung."""

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0
"""Wait before a camera is opened again; doubled each time in vain."""

WAITING_FRAMES = 4
"""Frames that the every-frame rule keeps."""

MAX_HUNG_READERS = 3
"""A reader that hangs inside a driver cannot be stopped; no more are started beside so many."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Captured:
    """A frame and when it came. index: number of the frame, from 0, also of those that are dropped
    later. time_s: of `time.monotonic` when it was read; unix_s: the same moment in seconds since
    1970.
    """

    index: int
    picture: Frame
    time_s: float
    unix_s: float


@dataclass(slots=True)
class CaptureCounts:
    """What has happened since the start. blank: frames of one color, which are left out. corrupt:
    frames that are no pictures. reconnects: times the camera was opened again.
    """

    captured: int = 0
    dropped: int = 0
    blank: int = 0
    corrupt: int = 0
    reconnects: int = 0
    stalls: int = 0
    size_changes: int = 0


@dataclass(slots=True)
class _Reader:
    """One reading thread. abandoned: nobody waits for it any more."""

    abandoned: bool = False
    thread: threading.Thread | None = None


@dataclass(slots=True)
class Capture:
    """Reads frames in a thread from `start` to `close`.

    open_camera: called in that thread, again after every failure. every_frame: drop none. stall_s:
    see `STALL_S`.
    """

    open_camera: Callable[[], Camera]
    every_frame: bool = False
    stall_s: float = STALL_S
    first_backoff_s: float = FIRST_BACKOFF_S
    counts: CaptureCounts = field(default_factory=CaptureCounts)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _frames: deque[Captured] = field(default_factory=deque)
    _reader: _Reader = field(default_factory=_Reader)
    _hung: list[threading.Thread] = field(default_factory=list)
    _alive_s: float = 0.0
    _ended: bool = False
    _closed: bool = False
    _size: tuple[int, int] | None = None
    _fault: SourceError | None = None
    _ever_opened: bool = False
    _ends: bool = False
    _backoff_s: float = 0.0

    def start(self) -> None:
        """Begin to read."""
        self._alive_s = time.monotonic()
        self._backoff_s = self.first_backoff_s
        self._spawn()

    def next(self, timeout_s: float) -> Captured | None:
        """The next frame under the rule, None if none comes in time or the source has ended.

        Raises SourceError when the source could not be opened the first time, and where a file is
        damaged.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._over, timeout_s)
            if self._frames:
                frame = self._frames.popleft()
                self._changed.notify_all()
                return frame
            if self._fault is not None:
                raise self._fault
        self._watch()
        return None

    @property
    def ended(self) -> bool:
        """Whether no frame will come any more, and there is nothing to be told of it."""
        with self._changed:
            return self._over and not self._frames and self._fault is None

    def close(self) -> None:
        """Stop reading; a reader that hangs is left to itself."""
        with self._changed:
            self._closed = True
            self._reader.abandoned = True
            self._changed.notify_all()
        if self._reader.thread is not None:
            self._reader.thread.join(timeout=1.0)

    @property
    def _over(self) -> bool:
        return self._ended or self._closed or self._fault is not None

    def _spawn(self) -> None:
        reader = _Reader()
        reader.thread = threading.Thread(target=self._run, args=(reader,), daemon=True)
        self._reader = reader
        reader.thread.start()

    def _watch(self) -> None:
        """Start another reader in place of one that hangs."""
        silent = time.monotonic() - self._alive_s
        if silent < self.stall_s or self._over or self._ends:
            return
        self._hung = [thread for thread in self._hung if thread.is_alive()]
        if len(self._hung) >= MAX_HUNG_READERS:
            return
        with self._changed:
            self.counts.stalls += 1
            self._reader.abandoned = True
            if self._reader.thread is not None:
                self._hung.append(self._reader.thread)
            self._alive_s = time.monotonic()
        _log.warning("no frame for %.1f s: the camera is opened again", silent)
        self._spawn()

    def _run(self, reader: _Reader) -> None:
        """Open, read, and open again with growing waits, until the end."""
        while not reader.abandoned:
            camera = self._open(reader)
            if camera is not None:
                try:
                    if self._read(camera, reader):
                        self._backoff_s = self.first_backoff_s
                finally:
                    camera.close()
            if reader.abandoned or self._over:
                return
            _log.warning("the camera gives no frames; opening it again in %.1f s", self._backoff_s)
            self._wait(reader, self._backoff_s)
            self._backoff_s = min(2 * self._backoff_s, LONGEST_BACKOFF_S)

    def _wait(self, reader: _Reader, seconds: float) -> None:
        with self._changed:
            # Waiting on purpose is no stall.
            self._alive_s = time.monotonic() + seconds
            self._changed.wait_for(lambda: reader.abandoned or self._over, seconds)

    def _open(self, reader: _Reader) -> Camera | None:
        self._alive_s = time.monotonic() + OPENING_S
        try:
            camera = self.open_camera()
        except Exception as error:  # noqa: BLE001 # an opener of the caller's own may raise anything
            with self._changed:
                if not self._ever_opened and not reader.abandoned:
                    self._fault = _as_source_error(error)
                    self._changed.notify_all()
            _log.info("the camera cannot be opened: %s", error)
            return None
        with self._changed:
            if not reader.abandoned:
                self.counts.reconnects += int(self._ever_opened)
                self._ever_opened, self._ends = True, camera.ends
                self._alive_s = time.monotonic()
                return camera
        camera.close()  # not under the lock: a driver may hang in it
        return None

    def _read(self, camera: Camera, reader: _Reader) -> bool:
        """Read until the camera gives nothing; whether it gave a frame at all."""
        any_frame = False
        last_good = time.monotonic()
        while not reader.abandoned:
            picture, fault = self._picture(camera)
            with self._changed:
                if reader.abandoned or self._over:
                    break
                if picture is None:
                    self._fault = fault
                    self._ended = self._ended or camera.ends
                    self._changed.notify_all()
                    break
                if not self._good(picture, camera):
                    # A camera may be dark for a while; one that stays so is opened again.
                    if time.monotonic() - last_good > self.stall_s and not camera.ends:
                        break
                    self._alive_s = time.monotonic()
                    continue
                self._take(picture)
                any_frame, last_good = True, self._alive_s
                if self.every_frame:
                    self._changed.wait_for(
                        lambda: len(self._frames) < WAITING_FRAMES or reader.abandoned or self._over
                    )
        return any_frame

    def _picture(self, camera: Camera) -> tuple[Frame | None, SourceError | None]:
        """The next picture; of a file that is damaged what is wrong with it."""
        try:
            return camera.read(), None
        except Exception as error:  # noqa: BLE001 # a camera of the caller's own may raise anything
            if camera.ends:
                return None, _as_source_error(error)
            _log.warning("%s", error)
            return None, None

    def _good(self, picture: Frame, camera: Camera) -> bool:
        """Whether this is a picture, and of a camera one that shows something: a file's are counted
        by its owner.
        """
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            self.counts.corrupt += 1
            return False
        if camera.ends:
            return True
        # Every 16th row and column is enough to tell, at a 256th of the cost.
        sparse = picture[::16, ::16]
        if sparse.size == 0 or (sparse == sparse[0, 0]).all():
            self.counts.blank += 1
            return False
        return True

    def _take(self, picture: Frame) -> None:
        size = (picture.shape[1], picture.shape[0])
        if self._size not in (None, size):
            self.counts.size_changes += 1
            _log.warning("frames were %s x %s pixels, now they are %s x %s", *self._size, *size)
        self._size = size
        self._alive_s = time.monotonic()
        if not self.every_frame and self._frames:
            self._frames.clear()
            self.counts.dropped += 1
        self._frames.append(Captured(self.counts.captured, picture, self._alive_s, time.time()))
        self.counts.captured += 1
        self._changed.notify_all()


def _as_source_error(error: Exception) -> SourceError:
    if isinstance(error, SourceError):
        return error
    return SourceError(f"the camera failed with {type(error).__name__}: {error}")
