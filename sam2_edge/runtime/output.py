"""Writing results in a thread of its own, so that a slow disk does not slow the tracking."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from sam2_edge.errors import SinkError
from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sources import SourceFrame

WAITING_RESULTS = 8
"""Results that may wait to be written."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Output:
    """Hands results to sinks, in order, until `close`.

    wait: a full queue makes `put` wait; otherwise the result is not written, and counted. A sink
    that fails is closed, told of in the log and left out from then on: the others go on.
    """

    sinks: Sequence[Sink]
    wait: bool
    skipped: int = 0
    written: int = 0
    seconds: float = 0.0
    failures: list[SinkError] = field(default_factory=list)
    _queue: queue.Queue[tuple[SourceFrame, FrameResult] | None] = field(
        default_factory=lambda: queue.Queue(WAITING_RESULTS)
    )
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to write."""
        if self.sinks:
            self._thread = threading.Thread(target=self._run, name="sam2_edge output")
            self._thread.start()

    def put(self, frame: SourceFrame, result: FrameResult) -> None:
        """Take one result."""
        if self._thread is None:
            return
        try:
            self._queue.put((frame, result), block=self.wait)
        except queue.Full:
            self.skipped += 1

    def close(self) -> None:
        """Write what waits, and finish every sink."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        working = list(self.sinks)
        while (item := self._queue.get()) is not None:
            start = time.perf_counter()
            working = [sink for sink in working if self._write(sink, *item)]
            self.written += 1
            self.seconds = time.perf_counter() - start
        for sink in working:
            self._finish(sink)

    def _write(self, sink: Sink, frame: SourceFrame, result: FrameResult) -> bool:
        """Whether the sink took it; otherwise it is finished."""
        try:
            sink.write(frame, result)
        except SinkError as error:
            self._fail(error)
            self._finish(sink)
            return False
        return True

    def _finish(self, sink: Sink) -> None:
        try:
            sink.close()
        except SinkError as error:
            self._fail(error)

    def _fail(self, error: SinkError) -> None:
        _log.error("%s", error)
        self.failures.append(error)
