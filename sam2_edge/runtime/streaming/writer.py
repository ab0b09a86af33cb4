"""Writes results in a separate thread, so that a slow disk does not delay tracking."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from sam2_edge.errors import LostResultError, SinkError
from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sources import SourceFrame
from sam2_edge.runtime.streaming.stream_log import StreamLog

MAX_WAITING_RESULTS = 8
"""Length of the queue of results to write."""

RETRY_S = 30.0
"""Delay before a sink that failed, for example on a full disk, starts a new file."""


class _Order(Enum):
    FINISH = auto()
    CLOSE = auto()


@dataclass(slots=True)
class _Output:
    """A sink, when to retry it after an error (None for never), and whether it loses results."""

    sink: Sink
    retry_s: float | None = 0.0
    losing: bool = False


class ResultWriter:
    """Passes results to sinks, in order, between `start` and `close`.

    If a sink fails, the error is logged, the sink is closed, and the others continue. Sinks that
    start new files are retried later. A sink that raises LostResultError is not closed.

    Args:
        sinks: Written to in this order.
        wait: Whether `put` waits while the queue is full rather than skipping the result.
        stream: Name of their stream, for the log.

    Attributes:
        skipped: Number of results not written, summed over the sinks.
        failures: Number of errors.
        first_failure: The first error.
        lost_reader: Whether the reader of a pipe, such as `head`, closed it. This is no failure.
    """

    def __init__(self, sinks: Sequence[Sink], *, wait: bool, stream: str | None = None) -> None:
        self.skipped = 0
        self.failures = 0
        self.first_failure: SinkError | None = None
        self.lost_reader = False
        self._outputs = [_Output(sink) for sink in sinks]
        self._wait = wait
        self._log = StreamLog(__name__, stream)
        self._queue: queue.Queue[tuple[SourceFrame, FrameResult] | _Order] = queue.Queue(
            MAX_WAITING_RESULTS
        )
        self._thread = threading.Thread(target=self._run, name="sam2_edge writer")

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def put(self, frame: SourceFrame, result: FrameResult) -> None:
        """Queue one result."""
        try:
            self._queue.put((frame, result), block=self._wait)
        except queue.Full:
            self.skipped += 1

    def finish_files(self) -> None:
        """Write the queued results, and finish the files of sinks that start new ones.

        Whoever waits at the end of a video can use them.
        """
        self._queue.put(_Order.FINISH)

    def close(self) -> None:
        """Write the queued results, and close every sink."""
        self._queue.put(_Order.CLOSE)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not _Order.CLOSE:
            for output in self._outputs:
                if not isinstance(item, _Order):
                    self._write(output, *item)
                elif output.retry_s is not None and output.sink.starts_new_file:
                    self._succeeds(output.sink.close)
        for output in self._outputs:
            if output.retry_s is not None:
                self._succeeds(output.sink.close)

    def _write(self, output: _Output, frame: SourceFrame, result: FrameResult) -> None:
        if output.retry_s is None or time.monotonic() < output.retry_s:
            self.skipped += 1
        elif not self._succeeds(lambda: self._send(output, frame, result)):
            self._succeeds(output.sink.close)
            retry = output.sink.starts_new_file
            output.retry_s = time.monotonic() + RETRY_S if retry else None

    def _send(self, output: _Output, frame: SourceFrame, result: FrameResult) -> None:
        """Write a result; of losses in a row, the first is logged."""
        try:
            output.sink.write(frame, result)
        except LostResultError as error:
            self.skipped += 1
            if not output.losing:
                self._log.warning("%s", error)
            output.losing = True
        else:
            output.losing = False

    def _succeeds(self, action: Callable[[], None]) -> bool:
        """Run an action on a sink, record any error, and return whether there was none."""
        try:
            action()
        except BrokenPipeError:
            self._log.info("the reader of results has closed the pipe; no more are written there")
            self.lost_reader = True
            return False
        except Exception as error:  # noqa: BLE001 # one sink's error must not stop the others
            if isinstance(error, SinkError):
                failure = error
            else:
                failure = SinkError(f"a result was not written: {type(error).__name__}: {error}")
            self._log.error("%s", failure)
            self.failures += 1
            self.first_failure = self.first_failure or failure
            return False
        return True
