"""A thread that reads a camera and reopens it after failures.

By default only the latest frame is kept, so that a slow model never falls behind a live camera.
With `every_frame` the reader waits instead.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sam2_edge.errors import SourceError
from sam2_edge.runtime.preprocess import Frame, TrackerInput
from sam2_edge.runtime.sources import SourceFrame
from sam2_edge.runtime.sources.camera import Camera
from sam2_edge.runtime.streaming.frames import Unusable, usable_frame
from sam2_edge.runtime.streaming.stream_log import StreamLog

STALL_S = 5.0
"""Time without a frame after which a camera is reopened."""

OPENING_S = 30.0
"""Additional time allowed for opening a camera."""

FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.5, 30.0
"""Delay before a camera is reopened; doubled after each failure."""

MAX_BLANK_S = 3600.0
"""A camera that shows a single color is reopened after `stall_s`, then after twice that, and so on
up to this: it may be broken, but a lens cap or the night is more likely."""

SIZE_LOG_S = 10.0
"""Minimum time between log messages about changes of the frame size."""

MAX_WAITING_FRAMES = 4
"""Length of the queue of frames to track with `every_frame`."""

MAX_HUNG_READERS = 3
"""Limit on abandoned readers: one that hangs in a driver cannot be stopped, only replaced."""


@dataclass(slots=True)
class CaptureCounts:
    """Events since the start.

    Attributes:
        captured: Valid frames.
        dropped: Captured frames that a later one replaced before they were tracked.
        blank: Single-color frames, which are skipped.
        corrupt: Empty frames, which are skipped.
        unsupported: Frames that cannot be tracked, such as 16-bit ones, which are skipped.
        reconnects: Times the camera was reopened.
        stalls: Times the camera delivered no frame for too long.
        size_changes: Times the frame size changed.
    """

    captured: int = 0
    dropped: int = 0
    blank: int = 0
    corrupt: int = 0
    unsupported: int = 0
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
        prepare: Called in that thread to make each frame the tracker's input.
        patient: Whether a camera that cannot be opened at first is tried again, as later.
        stream: Name of the stream, for its frames and the log.

    Attributes:
        counts: Events since the start.
    """

    def __init__(
        self,
        open_camera: Callable[[], Camera],
        *,
        every_frame: bool = False,
        stall_s: float = STALL_S,
        prepare: Callable[[Frame], TrackerInput] = lambda picture: picture,
        patient: bool = False,
        stream: str | None = None,
    ) -> None:
        self.open_camera = open_camera
        self.every_frame = every_frame
        self.stall_s = stall_s
        self.counts = CaptureCounts()
        self._prepare = prepare
        self._patient, self._stream = patient, stream
        self._log = StreamLog(__name__, stream)
        self._held = False
        self._changed = threading.Condition()
        self._frames: deque[tuple[SourceFrame, TrackerInput]] = deque()
        self._reader = _Reader(self._run)
        self._hung: list[_Reader] = []
        self._alive_s = 0.0
        self._over = False
        self._fault: SourceError | None = None
        self._size: tuple[int, int] | None = None
        self._size_logged_s = 0.0
        self._blank_limit_s = stall_s
        self._ever_opened = False
        self._unopened: SourceError | None = None
        self._told: str | None = None
        self._is_file = False
        self._backoff_s = FIRST_BACKOFF_S

    def start(self) -> None:
        """Start reading."""
        self._alive_s = time.monotonic()
        self._reader.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is a frame to take; False if none arrives in time or all are taken.

        Raises:
            SourceError: If the source could not be opened initially, or a file is damaged.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._over, timeout_s)
            if self._frames:
                return True
            if self._fault is not None:
                raise self._fault
        self._replace_stalled_reader()
        return False

    def take(self) -> tuple[SourceFrame, TrackerInput]:
        """Take the next frame, which `wait` has found.

        It comes with the tracker's input: its picture, or what `prepare` made of it. Frames are
        numbered from 0, including dropped ones.
        """
        with self._changed:
            frame = self._frames.popleft()
            self._changed.notify_all()
        return frame

    @property
    def ended(self) -> bool:
        """Whether there will be neither another frame nor an error."""
        with self._changed:
            return self._over and not self._frames and self._fault is None

    @property
    def held(self) -> bool:
        """Whether a file is not read on, whatever `every_frame` says; cameras are."""
        return self._held

    @held.setter
    def held(self, held: bool) -> None:
        with self._changed:
            self._held = held
            self._changed.notify_all()

    def restart(self) -> None:
        """Read a file that has ended from its start again; frames are numbered on."""
        with self._changed:
            self._over = False
            self._reader = _Reader(self._run)
            self._alive_s = time.monotonic()
        self._reader.start()

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
        self._log.warning("no frame for %.1f s; reopening the camera", silent_s)
        self._reader.start()

    def _run(self, reader: _Reader) -> None:
        """Open and read the camera, with exponential backoff after failures, until the end."""
        while not reader.abandoned:
            camera = self._open(reader)
            reason = str(self._unopened)
            if camera is not None:
                try:
                    reason = self._read(camera, reader)
                finally:
                    self._close(camera)
            if reader.abandoned or self._over:
                return
            # The same is not said again until frames arrive.
            if reason != self._told:
                self._log.warning("%s; reopening it", reason)
                self._told = reason
            with self._changed:
                self._alive_s = time.monotonic() + self._backoff_s  # waiting is not a stall
                self._changed.wait_for(lambda: reader.abandoned or self._over, self._backoff_s)
            self._backoff_s = min(2 * self._backoff_s, MAX_BACKOFF_S)

    def _open(self, reader: _Reader) -> Camera | None:
        self._alive_s = time.monotonic() + OPENING_S
        try:
            camera = self.open_camera()
        except Exception as error:  # noqa: BLE001 # a caller's own function may raise anything
            with self._changed:
                self._unopened = _as_source_error(error)
                if not (self._ever_opened or self._patient or reader.abandoned):
                    self._end(_as_source_error(error))
            return None
        with self._changed:
            if not reader.abandoned:
                self.counts.reconnects += int(self._ever_opened and not camera.ends)
                self._ever_opened, self._is_file = True, camera.ends
                self._alive_s = time.monotonic()
                return camera
        self._close(camera)  # outside the lock, since the driver may hang
        return None

    def _read(self, camera: Camera, reader: _Reader) -> str:
        """Read until the camera fails, a file ends or the reader is abandoned; returns why."""
        last_good_s = time.monotonic()
        told = set[str]()
        while not reader.abandoned:
            frame, fault = _read_frame(camera, self._prepare)
            with self._changed:
                if reader.abandoned or self._over:
                    break
                if frame is None:
                    if camera.ends:
                        self._end(fault)
                    return "the camera delivers no frames" if fault is None else str(fault)
                if isinstance(frame, Unusable):
                    if frame.reason not in told:
                        told.add(frame.reason)
                        self._log.warning("frames are skipped: %s", frame.reason)
                    if self._skip(frame, time.monotonic() - last_good_s) and not camera.ends:
                        return frame.reason
                    continue
                self._take(*frame)
                last_good_s = self._alive_s
                self._changed.wait_for(
                    lambda: not self._is_full() or reader.abandoned or self._over
                )
        return "the reader was abandoned"

    def _is_full(self) -> bool:
        if self.every_frame:
            return len(self._frames) >= MAX_WAITING_FRAMES
        return self._held and self._is_file and bool(self._frames)

    def _skip(self, frame: Unusable, without_s: float) -> bool:
        """Count a frame that cannot be tracked; returns whether to reopen the camera.

        Args:
            frame: The frame.
            without_s: Seconds since the last good frame, or since the camera was opened.
        """
        setattr(self.counts, frame.kind, getattr(self.counts, frame.kind) + 1)
        self._alive_s = time.monotonic()
        if frame.kind == "blank":
            if without_s <= self._blank_limit_s:
                return False
            self._blank_limit_s = min(2 * self._blank_limit_s, MAX_BLANK_S)
            return True
        if without_s <= self.stall_s:
            return False
        if frame.kind == "unsupported" and self.counts.captured == 0:
            self._end(SourceError(f"the camera delivers no usable frame: {frame.reason}"))
        return True

    def _close(self, camera: Camera) -> None:
        try:
            camera.close()
        except Exception as error:  # noqa: BLE001 # a caller's own camera may raise anything
            self._log.warning("%s", _as_source_error(error))

    def _end(self, fault: SourceError | None) -> None:
        self._over, self._fault = True, fault
        self._changed.notify_all()

    def _take(self, picture: Frame, ready: TrackerInput) -> None:
        size = (picture.shape[1], picture.shape[0])
        if self._size not in (None, size):
            self.counts.size_changes += 1
            if time.monotonic() - self._size_logged_s >= SIZE_LOG_S:
                self._size_logged_s = time.monotonic()
                self._log.warning(
                    "the frame size changed from %s x %s to %s x %s", *self._size, *size
                )
        self._size = size
        self._alive_s = time.monotonic()
        self._blank_limit_s = self.stall_s
        self._backoff_s = FIRST_BACKOFF_S
        if self._told is not None:
            self._told = None
            self._log.warning("frames arrive again")
        if not self.every_frame and self._frames:
            self._frames.clear()
            self.counts.dropped += 1
        index = self.counts.captured
        frame = SourceFrame(
            index, f"{index:08d}", picture, time.time(), self._alive_s, self._stream
        )
        self._frames.append((frame, ready))
        self.counts.captured += 1
        self._changed.notify_all()


def _read_frame(
    camera: Camera, prepare: Callable[[Frame], TrackerInput]
) -> tuple[tuple[Frame, TrackerInput] | Unusable | None, SourceError | None]:
    """Read and prepare one frame; returns both or None, and what the camera raised."""
    try:
        picture = camera.read()
        if picture is None:
            return None, None
        # A file's frames of a single color are kept, for the sake of its numbering.
        frame = usable_frame(picture, uniform=camera.ends)
        return frame if isinstance(frame, Unusable) else (frame, prepare(frame)), None
    except Exception as error:  # noqa: BLE001 # a caller's own camera may raise anything
        return None, _as_source_error(error)


def _as_source_error(error: Exception) -> SourceError:
    if isinstance(error, SourceError):
        return error
    return SourceError(f"the camera failed with {type(error).__name__}: {error}")
