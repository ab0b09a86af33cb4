"""The work of one stream; frames that repeat become CUDA graphs, each a single launch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from sam2_edge.errors import BackendError
from sam2_edge.runtime.backends.cuda.driver import Driver

WARM_RUNS = 2
"""Runs of a frame before its capture, since the first run of a shape may compile kernels or
allocate memory, and most frames of a changing scene never repeat."""

MAX_GRAPHS = 16
"""Graphs kept: the memories of a tracker are a ring of 7 slots, and each has its own addresses."""

PATIENCE = 4 * MAX_GRAPHS
"""Frames without a launch after which a graph gives way to a new one. A longer cycle than
MAX_GRAPHS would otherwise capture every frame."""

MAX_FAILURES = 3
"""Failed captures after which no more are attempted."""

Enqueue = Callable[[bool], None]
"""Enqueues work on the stream. True: the work is for a captured graph, which needs an execution
context of its own (NVIDIA/TensorRT #3798). It is then called twice, to run and to be recorded."""

_Frame = tuple[Hashable, ...]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Graph:
    executable: int
    last_frame: int


class Commands:
    """Takes all work of one stream, and keeps its order.

    Args:
        driver: The CUDA driver.
        stream: The stream. It does not belong to this object.
        whole_frames: Keep work until `flush` or `synchronize`, a frame, and launch a frame that
            repeated as one CUDA graph. Otherwise work is enqueued at once.
    """

    def __init__(self, driver: Driver, stream: int, *, whole_frames: bool) -> None:
        self.driver, self.stream = driver, stream
        self._whole_frames = whole_frames
        self._pending: list[tuple[Hashable, Enqueue]] = []
        self._graphs: dict[_Frame, _Graph] = {}  # the least recently launched first
        self._runs: dict[_Frame, int] = {}  # the least recently run first
        self._frame = self._failures = 0
        self._listeners: list[Callable[[set[Hashable]], None]] = []
        self._closed = False

    def submit(self, key: Hashable, enqueue: Enqueue) -> None:
        """Enqueue work, or keep it until `flush`.

        Memory may be released at once by whoever submits work on it: later users of the same
        memory come later on the stream.

        Args:
            key: Everything that the work depends on, such as engine, shapes and addresses: equal
                keys are the same work.
            enqueue: Enqueues the work.

        Raises:
            BackendError: If the work cannot be enqueued, or after `close`.
        """
        if self._closed:
            raise BackendError("this backend is closed; open another one")
        if self._whole_frames:
            self._pending.append((key, enqueue))
        else:
            _enqueue([enqueue], captured=False)

    def flush(self) -> None:
        """Enqueue the work that was kept."""
        work, self._pending = self._pending, []
        if not work:
            return
        self._frame += 1
        frame = tuple(key for key, _ in work)
        enqueues = [enqueue for _, enqueue in work]
        graph = self._graphs.pop(frame, None)
        if graph is not None:
            graph.last_frame = self._frame
            self._graphs[frame] = graph
            self.driver.launch(graph.executable, self.stream)
        elif self._has_repeated(frame) and self._has_room():
            self._run_and_capture(frame, enqueues)
        else:
            _enqueue(enqueues, captured=False)

    def synchronize(self) -> None:
        """Enqueue the work that was kept, and wait for all work."""
        self.flush()
        self.driver.synchronize(self.stream)

    def on_drop(self, listener: Callable[[set[Hashable]], None]) -> None:
        """Call `listener` with the keys of work that no graph contains any more."""
        self._listeners.append(listener)

    def drop_graphs(self) -> None:
        """Finish all work and free all graphs.

        To be called before memory that keys do not name moves, such as the engines' scratch memory,
        and not from `enqueue`.
        """
        self.synchronize()
        self._runs.clear()
        self._drop(list(self._graphs))

    def close(self) -> None:
        """Free everything, whatever the state of the GPU."""
        self._closed = True
        self._pending.clear()
        with suppress(BackendError):
            self.driver.synchronize(self.stream)
        for graph in self._graphs.values():
            with suppress(BackendError):
                self.driver.destroy_exec(graph.executable)
        self._graphs.clear()
        self._listeners.clear()

    def _has_repeated(self, frame: _Frame) -> bool:
        runs = self._runs.pop(frame, 0) + 1
        self._runs[frame] = runs
        if len(self._runs) > 4 * MAX_GRAPHS:
            del self._runs[next(iter(self._runs))]
        return runs > WARM_RUNS

    def _has_room(self) -> bool:
        """Return whether another graph may be captured; frees an old one if it must."""
        if self._failures >= MAX_FAILURES:
            return False
        if len(self._graphs) < MAX_GRAPHS:
            return True
        oldest = next(iter(self._graphs))
        if self._frame - self._graphs[oldest].last_frame <= PATIENCE:
            return False
        self.driver.synchronize(self.stream)
        self._drop([oldest])
        return True

    def _run_and_capture(self, frame: _Frame, work: list[Enqueue]) -> None:
        """Run a frame as it will be captured, then record it.

        The contexts of a graph must have run once with its shapes before they are recorded.
        """
        rest = list(work)
        try:
            while rest:
                _enqueue(rest[:1], captured=True)
                del rest[0]
        except BackendError as error:  # there may be no memory for another context
            self._capture_failed(frame, error)
            _enqueue(rest, captured=False)
            return
        try:
            executable = self._record(work)
        except BackendError as error:
            self._capture_failed(frame, error)
        else:
            self._graphs[frame] = _Graph(executable, self._frame)

    def _record(self, work: list[Enqueue]) -> int:
        try:
            self.driver.begin_capture(self.stream)
            _enqueue(work, captured=True)
        except BaseException:
            # Until its capture has ended, the stream takes no other work.
            with suppress(BackendError):
                self.driver.destroy_graph(self.driver.end_capture(self.stream))
            raise
        graph = self.driver.end_capture(self.stream)
        try:
            return self.driver.instantiate(graph)
        finally:
            self.driver.destroy_graph(graph)

    def _capture_failed(self, frame: _Frame, error: BackendError) -> None:
        self._failures += 1
        if self._failures == MAX_FAILURES:
            _log.warning("frames run without CUDA graphs: %s", error)
        self.driver.synchronize(self.stream)  # contexts that are dropped may be running
        self._tell_dropped(frame)

    def _drop(self, frames: list[_Frame]) -> None:
        """Free graphs that are not running."""
        for frame in frames:
            self.driver.destroy_exec(self._graphs.pop(frame).executable)
        self._tell_dropped(key for frame in frames for key in frame)

    def _tell_dropped(self, keys: Iterable[Hashable]) -> None:
        gone = set(keys).difference(*self._graphs)
        for listener in self._listeners if gone else ():
            listener(gone)


def _enqueue(work: Iterable[Enqueue], *, captured: bool) -> None:
    for enqueue in work:
        enqueue(captured)
