"""Several camera loops in one process, which share one backend.

    hub = CameraHub("nano")
    hub.add("door", "rtsp://10.0.0.5/stream")
    hub.add("yard", "rtsp://10.0.0.6/stream")
    for name, tracked in hub:
        ...

Each loop runs in a thread of its own. They take turns at the backend, one frame each.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue

from sam2_edge.bundle import Bundle
from sam2_edge.errors import LoopError, Sam2EdgeError
from sam2_edge.runtime.backends import Backend, BackendName
from sam2_edge.runtime.model import open_model
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sources.camera import Camera, is_camera
from sam2_edge.runtime.streaming.capture import STALL_S
from sam2_edge.runtime.streaming.loop import AtEnd, CameraLoop, LoopResult
from sam2_edge.runtime.streaming.stream_log import StreamLog
from sam2_edge.runtime.streaming.turns import Turns
from sam2_edge.runtime.tracker import VideoTracker

MAX_NAME_LENGTH = 64
"""Characters of a stream's name."""

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_LENGTH - 1}}}")


class CameraHub:
    """Tracks objects on several cameras; iterate over it once for `(name, LoopResult)`.

    Weights, engines and scratch memory exist once. Every stream has its own objects, sinks and
    faults: one that fails is logged, noted in `failures`, and ends alone. Streams are added before
    or during the iteration, which ends with the last of them or with `close`.

    Args:
        bundle: A bundle, its folder, or the name of a bundled model.
        backend: Name of a backend, or a backend opened for this bundle.
        threads: CPU threads; None for all cores.

    Attributes:
        bundle: The bundle, for trackers with options of their own.
        backend: The backend that they share.
        failures: What ended streams that failed, by name.

    Raises:
        BundleError: If the bundle cannot be used.
        BackendError: If the backend is missing or cannot run the bundle.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        *,
        backend: BackendName | Backend = "auto",
        threads: int | None = None,
    ) -> None:
        self._model = open_model(bundle, backend, threads=threads)
        self.bundle, self.backend = self._model.bundle, self._model.backend
        self.failures: dict[str, Exception] = {}
        self._turns = Turns()
        self._results: SimpleQueue[tuple[_Stream, LoopResult | None]] = SimpleQueue()
        self._lock = threading.Lock()  # guards the rest
        self._streams: dict[str, _Stream] = {}
        self._left = 0  # streams that have been started, and whose end has not been seen
        self._iterating = self._closed = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all streams, in the order in which they were added."""
        with self._lock:
            return tuple(self._streams)

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the streams that have not ended."""
        with self._lock:
            return tuple(n for n, stream in self._streams.items() if not stream.has_ended)

    def __getitem__(self, name: str) -> CameraLoop:
        """Return the loop of a stream, for commands: `hub["door"].click(1, 320, 240)`.

        Raises:
            LoopError: If there is no such stream.
        """
        with self._lock:
            if name in self._streams:
                return self._streams[name].loop
            known = ", ".join(self._streams) or "none"
        raise LoopError(f"there is no stream {name!r}; the streams are: {known}")

    def add(
        self,
        name: str,
        source: str | Callable[[], Camera],
        *,
        tracker: VideoTracker | None = None,
        prompts: Sequence[Prompt] | Mapping[int, Sequence[Prompt]] = (),
        max_objects: int | None = None,
        every_frame: bool | None = None,
        paced: bool = True,
        at_end: AtEnd = "stop",
        sinks: Sequence[Sink] = (),
        stall_s: float = STALL_S,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> CameraLoop:
        """Add a stream, and return its loop; the arguments are those of `CameraLoop`.

        A camera that cannot be opened at first is tried again, since the others run on.

        Args:
            name: Up to 64 letters, digits, dots, hyphens and underscores, beginning with a letter
                or digit. It may be that of a stream that has ended.
            source: A location for `open_camera`, or a function that opens a camera.
            tracker: A tracker on `backend`, which is closed when the stream ends; None for one that
                does not remember frames without its object.
            prompts: Prompts for the first frame, or for frames by number.
            max_objects: Objects up to which commands add new ones; None for no limit.
            every_frame: Whether to keep every frame; None keeps every frame of files only.
            paced: Whether to read a file at its own frame rate.
            at_end: What happens after the last frame of a file.
            sinks: Written to in a thread of the stream.
            stall_s: Seconds without a frame after which the camera is reopened.
            heartbeat: Called by the stream's thread many times per second.

        Raises:
            LoopError: If the name is invalid or that of a running stream, the tracker is another
                stream's, or the hub is closed.
        """
        check_stream_name(name)
        if tracker is None:
            tracker = VideoTracker(self.bundle, backend=self.backend, remember_absent=False)
        loop = CameraLoop(
            source,
            tracker,
            prompts=prompts,
            max_objects=max_objects,
            every_frame=every_frame,
            paced=paced,
            at_end=at_end,
            sinks=sinks,
            stall_s=stall_s,
            heartbeat=heartbeat,
            patient=not isinstance(source, str) or is_camera(source),
            name=name,
            turn=self._turns,
        )
        stream = _Stream(name, loop, tracker, self._turns, self._results, self.failures)
        with self._lock:
            self._check_new(name, tracker)
            self.failures.pop(name, None)
            self._streams[name] = stream
            if self._iterating:
                self._start(stream)
        return loop

    def close(self) -> None:
        """End all streams after their current frames, wait for them, and release the memory.

        Any thread may call it, except in a sink or a heartbeat.
        """
        with self._lock:
            self._closed = True
            streams = list(self._streams.values())
        for stream in streams:
            stream.stop()
        for stream in streams:
            stream.join()
        self._model.close()

    def __enter__(self) -> CameraHub:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[str, LoopResult]]:
        with self._lock:
            if self._closed or self._iterating:
                raise LoopError("this hub has been iterated over or closed; create another one")
            self._iterating = True
            for stream in self._streams.values():
                self._start(stream)
        try:
            while self._has_more():
                stream, tracked = self._results.get()
                if tracked is None:
                    self._count_end()
                else:
                    stream.delivered()
                    yield stream.name, tracked
        finally:
            self.close()

    def _has_more(self) -> bool:
        """Whether results may come; otherwise, `add` would be too late from now on."""
        with self._lock:
            self._closed = self._closed or not self._left
            return self._left > 0

    def _count_end(self) -> None:
        with self._lock:
            self._left -= 1

    def _start(self, stream: _Stream) -> None:
        self._left += 1
        stream.start()

    def _check_new(self, name: str, tracker: VideoTracker) -> None:
        if self._closed:
            raise LoopError("this hub is closed; create another one")
        if name in self._streams and not self._streams[name].has_ended:
            raise LoopError(
                f"a stream {name!r} is running; choose another name, or close that one first"
            )
        if any(stream.tracker is tracker for stream in self._streams.values()):
            raise LoopError(
                f"the tracker of stream {name!r} belongs to another stream; give each its own"
            )


class _Stream:
    """One loop in a thread of its own; at most one of its results waits to be taken."""

    def __init__(
        self,
        name: str,
        loop: CameraLoop,
        tracker: VideoTracker,
        turns: Turns,
        results: SimpleQueue[tuple[_Stream, LoopResult | None]],
        failures: dict[str, Exception],
    ) -> None:
        self.name, self.loop, self.tracker = name, loop, tracker
        self.has_ended = False
        self._turns, self._results, self._failures = turns, results, failures
        self._room = threading.Semaphore(1)
        self._thread = threading.Thread(target=self._run, name=f"sam2_edge stream {name}")
        self._log = StreamLog(__name__, name)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def delivered(self) -> None:
        """Make room for the next result."""
        self._room.release()

    def stop(self) -> None:
        """End the loop after its current frame, for whose result there is room."""
        self.loop.close()
        self._room.release()

    def join(self) -> None:
        """Wait for the end of the thread, if it was started."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            for tracked in self.loop:
                self._room.acquire()
                self._results.put((self, tracked))
        except Exception as error:  # noqa: BLE001 # the other streams run on
            self._failures[self.name] = error
            unexpected = not isinstance(error, Sam2EdgeError)
            self._log.error("the stream has ended: %s", error, exc_info=unexpected)
        finally:
            with self._turns:
                self.tracker.close()
            self.has_ended = True
            self._results.put((self, None))


def check_stream_name(name: str) -> None:
    """Raise LoopError unless a name can be a folder's, a label's and a part of a URL."""
    if not _NAME.fullmatch(name) or name.endswith("."):
        shown = name if len(name) <= MAX_NAME_LENGTH else f"{name[:MAX_NAME_LENGTH]}..."
        raise LoopError(
            f"{shown!r} cannot be the name of a stream; use up to {MAX_NAME_LENGTH} letters a to "
            "z, digits, dots, hyphens and underscores, beginning with a letter or digit"
        )
