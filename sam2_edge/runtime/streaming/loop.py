"""The camera loop: tracks objects on a camera that may fail, under control of other threads.

    loop = CameraLoop("rtsp://camera/stream", VideoTracker("nano", remember_absent=False))
    for tracked in loop:
        ...

Reading, tracking and writing run in separate threads, with only a few frames queued between them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import ArrayLike, NDArray

from sam2_edge.errors import LoopError, PromptError
from sam2_edge.runtime.preprocess import Frame, TrackerInput
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.results import FrameResult, ObjectResult
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sources import SourceFrame
from sam2_edge.runtime.sources.camera import Camera, is_camera, open_camera
from sam2_edge.runtime.streaming.capture import STALL_S, Capture, CaptureCounts
from sam2_edge.runtime.streaming.commands import MAX_WAITING_COMMANDS, CommandQueue
from sam2_edge.runtime.streaming.guarded import Guarded
from sam2_edge.runtime.streaming.preparing import FramePreparer
from sam2_edge.runtime.streaming.writer import ResultWriter
from sam2_edge.runtime.tracker import VideoTracker

POLL_S = 0.05
"""How long the loop waits for a frame before it checks for commands."""


@dataclass(frozen=True, slots=True)
class LoopResult:
    """One tracked frame.

    Attributes:
        frame: The frame; its index counts all captured frames.
        result: The objects on it.
        waited_s: Seconds from capture until tracking began.
        latency_s: Seconds from capture until the result was ready.
        updated: Whether this frame was yielded before, and commands have changed its result since.
    """

    frame: SourceFrame
    result: FrameResult
    waited_s: float
    latency_s: float
    updated: bool = False


class CameraLoop:
    """Tracks objects on a camera until the loop is closed or a file ends; iterate over it once.

    `prompt`, `remove`, `rename`, `reset`, `pause`, `resume` and `close` may be called from any
    thread. The first four return a Future that resolves between two frames: do not wait for it in
    the iterating thread. However many commands come, frames get at least half of the time; at most
    `MAX_WAITING_COMMANDS` wait, and one that is cancelled before it starts is skipped.

    Args:
        source: A location for `open_camera`, or a function that opens a camera, which is called
            again after failures.
        tracker: Used by the iterating thread only.
        prompts: Objects to track from the first frame on; an invalid prompt ends the iteration.
        max_objects: Objects up to which `prompt` adds new ones; None for no limit.
        every_frame: Whether to keep every frame; None keeps every frame of files only.
        paced: Whether to read a file at its own frame rate rather than as fast as possible.
        sinks: Written to in a separate thread. `MaskFolder` needs a tracker with `logits=True`.
        stall_s: Seconds without a frame after which a camera is reopened.
        heartbeat: Called by the iterating thread many times per second, with or without frames. An
            error that it raises is logged.

    Attributes:
        writer: Writes to the sinks and counts failures.
        tracked: Number of frames tracked.

    Raises:
        SourceError: When the iteration starts, if the camera cannot be opened. Later failures are
            logged and counted, and the camera is reopened.
        PromptError: On the first frame, if one of `prompts` is invalid.
    """

    def __init__(
        self,
        source: str | Callable[[], Camera],
        tracker: VideoTracker,
        *,
        prompts: Sequence[Prompt] = (),
        max_objects: int | None = None,
        every_frame: bool | None = None,
        paced: bool = True,
        sinks: Sequence[Sink] = (),
        stall_s: float = STALL_S,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        if isinstance(source, str):
            every_frame = not is_camera(source) if every_frame is None else every_frame
            source = partial(open_camera, source, paced=paced)
        self.writer = ResultWriter(sinks, wait=bool(every_frame))
        self.tracked = 0
        self._tracker = tracker
        self._capture = Capture(
            source,
            every_frame=bool(every_frame),
            stall_s=stall_s,
            prepare=_preparation(tracker, every_frame=bool(every_frame)),
        )
        self._prompts, self._max_objects = tuple(prompts), max_objects
        self._heartbeat = Guarded("the heartbeat", heartbeat)
        self._commands = CommandQueue(self._heartbeat)
        self._wake = threading.Event()
        self._paused = self._closing = self._over = False
        self._last: SourceFrame | None = None

    @property
    def counts(self) -> CaptureCounts:
        """Camera events since the start."""
        return self._capture.counts

    @property
    def paused(self) -> bool:
        """Whether new frames are ignored."""
        return self._paused

    @property
    def names(self) -> dict[int, str]:
        """Names of the tracked objects that have one, by id."""
        return self._tracker.names

    def prompt(
        self,
        object_id: int,
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: NDArray[Any] | None = None,
    ) -> Future[ObjectResult]:
        """Add or refine an object on the latest tracked frame; see `VideoTracker.prompt`.

        A command before the first frame applies to it. The Future raises PromptError if the prompt
        is invalid, or one of a new object beyond `max_objects`.

        Raises:
            LoopError: If too many commands wait already, or the loop has ended.
        """
        prompt = partial(
            self._tracker.prompt, object_id, points=points, labels=labels, box=box, mask=mask
        )
        return self._submit(lambda: self._if_allowed(object_id, prompt))

    def remove(self, object_id: int) -> Future[None]:
        """Stop tracking an object; see `VideoTracker.remove`."""
        return self._submit(lambda: self._tracker.remove(object_id))

    def rename(self, object_id: int, name: str) -> Future[None]:
        """Give a tracked object a name; see `VideoTracker.rename`."""
        return self._submit(lambda: self._tracker.rename(object_id, name))

    def reset(self) -> Future[None]:
        """Stop tracking every object."""
        return self._submit(self._reset)

    def pause(self) -> None:
        """Stay on the current frame; commands still apply to it."""
        self._paused = True

    def resume(self) -> None:
        """Continue with the next frame of a file, or the latest of a camera."""
        self._paused = False
        self._wake.set()

    def close(self) -> None:
        """End the iteration after the current frame."""
        self._closing = True
        self._commands.stop()
        self._wake.set()

    def __iter__(self) -> Iterator[LoopResult]:
        if self._over:
            raise LoopError("this loop has ended; create another one")
        self._capture.start()
        self.writer.start()
        try:
            while not self._closing and not self._capture.ended:
                self._heartbeat()
                yield from self._step()
        finally:
            self._end()

    def _step(self) -> Iterator[LoopResult]:
        """Poll for a frame, track it, run commands, and yield a new or updated result."""
        taken = None
        if self._paused:
            self._wake.wait(POLL_S)
            self._wake.clear()
        else:
            taken = self._capture.next(POLL_S)
        began_s = time.monotonic()
        if taken is not None:
            first = self._last is None
            frame, ready = taken
            result = self._tracker.track(ready, self._prompts if first else ())
            self._last = frame
            self.tracked += 1
            if self._commands.run(at_least=MAX_WAITING_COMMANDS if first else 0):
                result = self._tracker.result()
            yield self._publish(frame, result, began_s)
        elif self._last is not None and self._commands.run(at_least=int(self._paused)):
            yield self._publish(self._last, self._tracker.result(), began_s, updated=True)

    def _publish(
        self, frame: SourceFrame, result: FrameResult, began_s: float, *, updated: bool = False
    ) -> LoopResult:
        self.writer.put(frame, result)
        latency_s = time.monotonic() - frame.read_s
        return LoopResult(frame, result, began_s - frame.read_s, latency_s, updated)

    def _if_allowed(self, object_id: int, prompt: Callable[[], ObjectResult]) -> ObjectResult:
        tracked = self._tracker.object_ids
        limit = len(tracked) + 1 if self._max_objects is None else self._max_objects
        if object_id not in tracked and len(tracked) >= limit:
            raise PromptError(
                f"{len(tracked)} of at most {limit} objects are tracked; remove one first"
            )
        return prompt()

    def _submit(self, command: Callable[[], Any]) -> Future[Any]:
        future = self._commands.submit(command)
        self._wake.set()
        return future

    def _reset(self) -> None:
        self._tracker.reset()
        assert self._last is not None  # commands wait for the first frame
        self._tracker.track(self._last.picture)  # later commands apply to this frame

    def _end(self) -> None:
        self._over = True
        self._commands.close()
        try:
            self._capture.close()
        finally:  # even if a second signal interrupts the wait
            self.writer.close()


def _preparation(tracker: VideoTracker, *, every_frame: bool) -> Callable[[Frame], TrackerInput]:
    """Return what the reading thread does with each frame for the tracker.

    On a CPU, preparing frames that are dropped would take time from the model.
    """
    if every_frame:
        return tracker.prepare
    return FramePreparer(tracker.prepare) if tracker.on_device else lambda picture: picture
