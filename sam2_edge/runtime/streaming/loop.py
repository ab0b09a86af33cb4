"""The camera loop: frames from a camera that may fail, tracked, steered from other threads.

    loop = CameraLoop("rtsp://camera/stream", VideoTracker("nano", remember_absent=False))
    for tracked in loop:
        ...

Reading, tracking and writing run in threads of their own; between them wait at most a few frames.
"""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import ArrayLike, NDArray

from sam2_edge.errors import LoopError, Sam2EdgeError
from sam2_edge.runtime.results import FrameResult, ObjectResult
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sources import SourceFrame
from sam2_edge.runtime.sources.camera import Camera, is_live, open_camera
from sam2_edge.runtime.streaming.capture import STALL_S, Capture, CaptureCounts, Captured
from sam2_edge.runtime.streaming.writer import Output
from sam2_edge.runtime.tracker import VideoTracker

POLL_S = 0.05
"""How long the loop waits for a frame before it looks for commands."""


@dataclass(frozen=True, slots=True)
class LoopResult:
    """One tracked frame.

    frame: its number counts all frames that were captured. waited_s: from capture until tracking
    began. latency_s: from capture until the result was there. again: the frame was given before and
    commands have changed its result since.
    """

    frame: SourceFrame
    result: FrameResult
    waited_s: float
    latency_s: float
    again: bool = False


class CameraLoop:
    """Tracks what a camera shows until it is closed, or a file ends. Iterate over it once.

    source: see `open_camera`; or a function that opens a camera, called again after failures.
    every_frame: drop no frame; None does so for files alone. paced: see `open_camera`. sinks:
    written to in a thread of their own. tick: called in the iterating thread many
    times a second, also while there is no frame.

    `prompt`, `remove`, `reset`, `pause`, `resume` and `close` may be called from any thread. The
    first three give a Future, resolved between two frames: do not wait for it in the iterating
    thread.

    Raises SourceError at the start of the iteration when the camera cannot be opened; later
    failures are logged, counted, and mended by opening it again.
    """

    def __init__(
        self,
        source: str | Callable[[], Camera],
        tracker: VideoTracker,
        *,
        every_frame: bool | None = None,
        paced: bool = True,
        sinks: Sequence[Sink] = (),
        stall_s: float = STALL_S,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        if isinstance(source, str):
            every_frame = not is_live(source) if every_frame is None else every_frame
            source = functools.partial(open_camera, source, paced=paced)
        self._tracker = tracker
        self._capture = Capture(source, every_frame=bool(every_frame), stall_s=stall_s)
        self._output = Output(sinks, wait=bool(every_frame))
        self._commands: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = (
            queue.SimpleQueue()
        )
        self._tick = tick
        self._wake = threading.Event()
        self._paused = self._closing = False
        self._ended = threading.Lock()
        self._over = False
        self._last: Captured | None = None
        self.tracked = 0

    @property
    def counts(self) -> CaptureCounts:
        """What the camera did so far."""
        return self._capture.counts

    @property
    def output(self) -> Output:
        """What was written so far."""
        return self._output

    @property
    def paused(self) -> bool:
        """Whether frames are left untracked."""
        return self._paused

    def prompt(
        self,
        object_id: int,
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: NDArray[Any] | None = None,
    ) -> Future[ObjectResult]:
        """Add an object, or refine it, on the frame that is tracked when the command is obeyed; see
        `VideoTracker.prompt`. The Future raises PromptError for a prompt that cannot be used.
        """
        return self._submit(
            lambda: self._tracker.prompt(
                object_id, points=points, labels=labels, box=box, mask=mask
            )
        )

    def remove(self, object_id: int) -> Future[None]:
        """Stop tracking an object; see `VideoTracker.remove`."""
        return self._submit(lambda: self._tracker.remove(object_id))

    def reset(self) -> Future[None]:
        """Forget every object."""
        return self._submit(self._reset)

    def pause(self) -> None:
        """Stay at the current frame; commands are obeyed on it."""
        self._paused = True

    def resume(self) -> None:
        """Go on with the frame that is there then."""
        self._paused = False
        self._wake.set()

    def close(self) -> None:
        """End the iteration after the present frame."""
        self._closing = True
        self._wake.set()

    def __iter__(self) -> Iterator[LoopResult]:
        if self._over:
            raise LoopError("this loop has ended; make another")
        self._capture.start()
        self._output.start()
        try:
            while not self._closing and not self._capture.ended:
                self._tick()
                yield from self._step()
        finally:
            self._end()

    def _step(self) -> Iterator[LoopResult]:
        """Wait a little for a frame and track it, obey commands, and give what is new."""
        captured = None
        if self._paused:
            self._wake.wait(POLL_S)
            self._wake.clear()
        else:
            captured = self._capture.next(POLL_S)
        if captured is not None:
            began = time.monotonic()
            result = self._tracker.track(captured.picture)
            self._last = captured
            self.tracked += 1
            changed = self._obey()
            yield self._result(captured, self._tracker.result() if changed else result, began)
        elif self._last is not None and self._obey():
            result = self._tracker.result()
            yield replace(self._result(self._last, result, time.monotonic()), again=True)

    def _result(self, captured: Captured, result: FrameResult, began: float) -> LoopResult:
        name = f"{captured.index:08d}"
        frame = SourceFrame(captured.index, name, captured.picture, captured.unix_s)
        self._output.put(frame, result)
        now = time.monotonic()
        return LoopResult(frame, result, began - captured.time_s, now - captured.time_s)

    def _submit(self, command: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        with self._ended:
            if self._over:
                raise LoopError("this loop has ended; it takes no more commands")
            self._commands.put((command, future))
        self._wake.set()
        return future

    def _obey(self) -> bool:
        """Carry out the commands that wait; whether there was one."""
        obeyed = False
        while not self._commands.empty():
            command, future = self._commands.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                outcome = command()
            except Sam2EdgeError as error:
                future.set_exception(error)
            except BaseException as error:
                future.set_exception(error)  # whoever waits for it learns of it before the end
                raise
            else:
                future.set_result(outcome)
            obeyed = True
        return obeyed

    def _reset(self) -> None:
        self._tracker.reset()
        assert self._last is not None  # commands wait for the first frame
        self._tracker.track(self._last.picture)  # further commands are about this frame

    def _end(self) -> None:
        with self._ended:
            self._over = True
        while not self._commands.empty():
            _, future = self._commands.get()
            if future.set_running_or_notify_cancel():
                future.set_exception(LoopError("the loop ended before this command"))
        try:
            self._capture.close()
        finally:  # also where a second signal interrupts the waiting
            self._output.close()
