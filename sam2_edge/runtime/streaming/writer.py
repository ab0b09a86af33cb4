"""Writing results in a thread of its own, so that a slow disk does not slow the tracking."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sam2_edge.errors import SinkError
from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sources import SourceFrame

WAITING_RESULTS = 8
"""Results that may wait to be written."""

RETRY_S = 30.0
"""Until an output that failed, such as on a full disk, is begun anew."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    """A sink, and from when on it is tried again after a failure; None where there is no use."""

    sink: Sink
    retry_s: float | None = 0.0


@dataclass(slots=True)
class Output:
    """Hands results to sinks, in order, until `close`.

    wait: a full queue makes `put` wait; otherwise the result is not written, and counted. A sink
    that fails is closed and told of in the log, and the others go on; one that begins file after
    file (`begins_anew`) is tried again later. failures counts, first_failure is what to tell.
    """

    sinks: Sequence[Sink]
    wait: bool
    skipped: int = 0
    failures: int = 0
    first_failure: SinkError | None = None
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
        held = [_Held(sink) for sink in self.sinks]
        while (item := self._queue.get()) is not None:
            for one in held:
                self._write(one, *item)
        for one in held:
            if one.retry_s is not None:
                self._guarded(one.sink.close)

    def _write(self, held: _Held, frame: SourceFrame, result: FrameResult) -> None:
        if held.retry_s is None or time.monotonic() < held.retry_s:
            self.skipped += 1
            return
        if not self._guarded(lambda: held.sink.write(frame, result)):
            self._guarded(held.sink.close)
            again = getattr(held.sink, "begins_anew", False)
            held.retry_s = time.monotonic() + RETRY_S if again else None

    def _guarded(self, act: Callable[[], None]) -> bool:
        """Whether it went well; whatever a sink raises must not end the others."""
        try:
            act()
        except SinkError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 # a disk that is gone, a codec that gives up
            self._fail(SinkError(f"a result was not written: {type(error).__name__}: {error}"))
        else:
            return True
        return False

    def _fail(self, error: SinkError) -> None:
        _log.error("%s", error)
        self.failures += 1
        self.first_failure = self.first_failure or error
