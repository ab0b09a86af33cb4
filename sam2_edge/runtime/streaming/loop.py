"""The camera loop: tracks objects on a camera that may fail, under control of other threads.

    loop = CameraLoop("rtsp://camera/stream", VideoTracker("nano", remember_absent=False))
    for tracked in loop:
        ...

Reading, tracking and writing run in separate threads, with only a few frames queued between them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from numpy.typing import ArrayLike, NDArray

from sam2_edge.errors import LoopError
from sam2_edge.runtime.preprocess import Frame, TrackerInput
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.results import FrameResult, ObjectResult
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sources import SourceFrame
from sam2_edge.runtime.sources.camera import Camera, is_camera, open_camera
from sam2_edge.runtime.streaming.capture import STALL_S, Capture, CaptureCounts
from sam2_edge.runtime.streaming.commands import MAX_WAITING_COMMANDS, CommandQueue
from sam2_edge.runtime.streaming.editing import Editor, EditState
from sam2_edge.runtime.streaming.guarded import Guarded
from sam2_edge.runtime.streaming.preparing import FramePreparer
from sam2_edge.runtime.streaming.writer import ResultWriter
from sam2_edge.runtime.tracker import VideoTracker

AtEnd = Literal["stop", "wait", "loop"]

POLL_S = 0.05
"""How long the loop waits for a frame before it checks for commands."""


@dataclass(frozen=True, slots=True)
class LoopResult:
    """One tracked frame.

    Attributes:
        frame: The frame; its index counts all captured frames.
        result: The objects on it.
        waited_s: Seconds from capture, or a later `resume`, until tracking began.
        latency_s: Seconds from the same moment until the result was ready.
        edits: Clicks on the frame, and what can be undone.
        updated: Whether this frame was yielded before, and commands have changed its result since.
    """

    frame: SourceFrame
    result: FrameResult
    waited_s: float
    latency_s: float
    edits: EditState
    updated: bool = False


class CameraLoop:
    """Tracks objects on a camera until the loop is closed or a file ends; iterate over it once.

    All methods may be called from any thread. Those that return a Future are commands, which run
    between two frames: do not wait for them in the iterating thread. However many commands come,
    frames get at least half of the time; at most `MAX_WAITING_COMMANDS` wait, and one that is
    cancelled before it starts is skipped. Commands can be undone, up to `editing.MAX_STEPS`.

    Args:
        source: A location for `open_camera`, or a function that opens a camera, which is called
            again after failures.
        tracker: Used by the iterating thread only.
        prompts: Prompts for the first frame, or for frames by number, of which those that are
            dropped are not prompted; an invalid prompt ends the iteration.
        max_objects: Objects up to which `prompt` adds new ones; None for no limit.
        every_frame: Whether to keep every frame; None keeps every frame of files only.
        paced: Whether to read a file at its own frame rate rather than as fast as possible.
        at_end: What happens after the last frame of a file: the iteration ends, waits on that frame
            for commands and `replay`, or starts over. Objects are kept when a file starts over.
        sinks: Written to in a separate thread. `MaskFolder` needs a tracker with `logits=True`.
        stall_s: Seconds without a frame after which a camera is reopened.
        heartbeat: Called by the iterating thread many times per second, with or without frames. An
            error that it raises is logged.
        patient: Whether a camera that cannot be opened at the start is tried again, as later.
        name: Name of the stream in its frames and in the log, if there are several.
        turn: Held while the tracker works, and never while the loop waits for frames or sinks.
            Loops whose trackers share a backend share it, such as `Turns`.

    Attributes:
        name: Name of the stream; None for the only one.
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
        prompts: Sequence[Prompt] | Mapping[int, Sequence[Prompt]] = (),
        max_objects: int | None = None,
        every_frame: bool | None = None,
        paced: bool = True,
        at_end: AtEnd = "stop",
        sinks: Sequence[Sink] = (),
        stall_s: float = STALL_S,
        heartbeat: Callable[[], None] = lambda: None,
        patient: bool = False,
        name: str | None = None,
        turn: AbstractContextManager[object] | None = None,
    ) -> None:
        if isinstance(source, str):
            every_frame = not is_camera(source) if every_frame is None else every_frame
            source = partial(open_camera, source, paced=paced)
        self.name = name
        self.writer = ResultWriter(sinks, wait=bool(every_frame), stream=name)
        self.tracked = 0
        self._turn = nullcontext() if turn is None else turn
        self._tracker = tracker
        self._capture = Capture(
            source,
            every_frame=bool(every_frame),
            stall_s=stall_s,
            prepare=_preparation(tracker, every_frame=bool(every_frame)),
            patient=patient,
            stream=name,
        )
        self._prompts = prompts if isinstance(prompts, Mapping) else {0: tuple(prompts)}
        self._at_end = at_end
        self._editor = Editor(tracker, max_objects=max_objects)
        self._heartbeat = Guarded("the heartbeat", heartbeat, stream=name)
        self._commands = CommandQueue(self._heartbeat)
        self._wake = threading.Event()
        self._paused = self._closing = self._over = self._replaying = False
        self._resumed_s = 0.0
        self._last: SourceFrame | None = None
        self._announced = False

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

    @property
    def finished(self) -> bool:
        """Whether the loop waits on the last frame of a file for commands and `replay`."""
        return self._at_end == "wait" and self._last is not None and self._capture.ended

    @property
    def resumed_s(self) -> float:
        """When frames last began to flow after a pause or an end, by `time.monotonic`; or 0."""
        return self._resumed_s

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
        prompt = partial(self._editor.prompt, object_id)
        return self._submit(lambda: prompt(points=points, labels=labels, box=box, mask=mask))

    def click(
        self, object_id: int, x: float, y: float, *, foreground: bool = True
    ) -> Future[ObjectResult]:
        """Prompt an object with one more click beside its prompt on the latest tracked frame."""
        return self._submit(lambda: self._editor.click(object_id, x, y, foreground=foreground))

    def remove(self, object_id: int) -> Future[None]:
        """Stop tracking an object; see `VideoTracker.remove`."""
        return self._submit(lambda: self._editor.remove(object_id))

    def rename(self, object_id: int, name: str) -> Future[None]:
        """Give a tracked object a name; see `VideoTracker.rename`."""
        return self._submit(lambda: self._editor.rename(object_id, name))

    def reset(self) -> Future[None]:
        """Stop tracking every object."""
        return self._submit(self._editor.reset)

    def undo(self) -> Future[None]:
        """Undo the last command; see `Editor.undo`. The Future raises PromptError without one."""
        return self._submit(self._editor.undo)

    def redo(self) -> Future[None]:
        """Redo the last command that was undone; see `undo`."""
        return self._submit(self._editor.redo)

    def pause(self) -> None:
        """Stay on the current frame, or the first; commands still apply to it."""
        self._paused = self._capture.held = True

    def resume(self) -> None:
        """Continue with the next frame of a file, or the latest of a camera."""
        self._resumed_s = time.monotonic()
        self._paused = self._capture.held = False
        self._wake.set()

    def replay(self) -> None:
        """Start a file over that has come to its end; does nothing before that."""
        self._replaying = self.finished
        self.resume()

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
            while not self._closing and not (self._at_end == "stop" and self._capture.ended):
                self._heartbeat()
                yield from self._step()
        finally:
            self._end()

    def _step(self) -> Iterator[LoopResult]:
        """Poll for a frame, track it, run commands, and yield a new or updated result."""
        if self._last is not None and self._capture.ended:
            self._start_over()
        is_finished = self.finished
        is_due = False
        if (self._paused and self._last is not None) or is_finished:
            self._wake.wait(POLL_S)
            self._wake.clear()
        else:
            is_due = self._capture.wait(POLL_S)
        if is_due:
            yield self._tracked()
        elif self._last is None:
            return
        elif self._edited(at_least=int(self._paused or is_finished)):
            yield self._again(self._last, write=True)
        elif is_finished != self._announced:
            self._announced = is_finished
            if is_finished:
                self.writer.finish_files()
            yield self._again(self._last, write=False)

    def _tracked(self) -> LoopResult:
        """Track a frame, and run commands that wait."""
        first = self._last is None
        with self._turn:
            began_s = time.monotonic()
            frame, ready = self._capture.take()  # not before: a newer one may have come meanwhile
            result = self._tracker.track(ready, self._prompts.get(0 if first else frame.index, ()))
            self._last = frame
            self.tracked += 1
            self._editor.advance()
            if self._commands.run(at_least=MAX_WAITING_COMMANDS if first else 0):
                result = self._tracker.result()
        self.writer.put(frame, result)
        return self._result(frame, result, began_s)

    def _edited(self, *, at_least: int) -> bool:
        """Run commands between frames, and return whether there were any."""
        with self._turn:
            return self._commands.run(at_least=at_least)

    def _again(self, frame: SourceFrame, *, write: bool) -> LoopResult:
        """Return the latest frame with its result as it is now."""
        began_s, result = time.monotonic(), self._tracker.result()
        if write:
            self.writer.put(frame, result)
        return self._result(frame, result, began_s, updated=True)

    def _result(
        self, frame: SourceFrame, result: FrameResult, began_s: float, *, updated: bool = False
    ) -> LoopResult:
        # Frames that were read before a pause have not waited for the model meanwhile.
        due_s = max(frame.read_s, self._resumed_s)
        waited_s, latency_s = began_s - due_s, time.monotonic() - due_s
        return LoopResult(frame, result, waited_s, latency_s, self._editor.state, updated)

    def _start_over(self) -> None:
        """Read a file again that has ended, if it is time for that."""
        if self._at_end == "loop" or self._replaying:
            self._resumed_s = time.monotonic()
            self._capture.restart()
        self._replaying = False

    def _submit(self, command: Callable[[], Any]) -> Future[Any]:
        future = self._commands.submit(command)
        self._wake.set()
        return future

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
