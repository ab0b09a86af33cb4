"""The sequences that a model instance tracks: one tracker each, within limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sam2_edge.errors import PromptError, Sam2EdgeError, SourceError
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.prompts import Prompt, prompts_by_object
from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.tracker import VideoTracker

SequenceId = int | str
"""Triton's correlation id."""

IDLE_FACTOR = 2
"""A tracker is closed after this many times the idle time of Triton, which then refuses requests
without START: those that wait in its queue for that long must still find their tracker."""


class SequenceError(Sam2EdgeError):
    """Raised for a sequence that cannot be opened or is not open."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one model instance accepts.

    Attributes:
        max_sequences: Sequences open at a time.
        max_objects: Objects per sequence.
        max_pixels: Pixels of a frame.
        idle_s: Triton's own limit between two requests of a sequence, seconds.
    """

    max_sequences: int
    max_objects: int
    max_pixels: int
    idle_s: float


class Sequence:
    """One stream of frames, and its tracker."""

    def __init__(self, tracker: VideoTracker, limits: Limits) -> None:
        self._tracker, self._limits = tracker, limits
        self._frame_size: tuple[int, int] | None = None
        self.last_used_s = 0.0

    def advance(
        self, frame: Frame | None, prompts: list[Prompt], removed: Collection[int]
    ) -> FrameResult | None:
        """Remove objects, track a frame if there is one, and prompt objects on the current frame.

        Returns:
            The objects on the current frame; None before the first.

        Raises:
            SourceError: If the frame does not suit the sequence; nothing has changed.
            PromptError: If there are too many objects, or a prompt or an id is invalid. With a
                frame nothing has changed.
        """
        tracker = self._tracker
        self._check(frame, prompts, removed)
        for object_id in removed:
            tracker.remove(object_id)
        if frame is not None:
            result = tracker.track(frame, prompts)
            self._frame_size = result.frame_size
            return result
        for prompt in prompts:
            tracker.prompt(
                prompt.object_id,
                points=prompt.points,
                labels=prompt.labels,
                box=prompt.box,
                mask=prompt.mask,  # type: ignore[arg-type]
            )
            if prompt.name is not None:
                tracker.rename(prompt.object_id, prompt.name)
        return tracker.result() if tracker.frame_index >= 0 else None

    def close(self) -> None:
        """Free the memory of the sequence."""
        self._tracker.close()

    def _check(self, frame: Frame | None, prompts: list[Prompt], removed: Collection[int]) -> None:
        if frame is not None:
            self._check_frame(frame)
        tracked = set(self._tracker.object_ids)
        unknown = sorted(set(removed) - tracked)
        if unknown:
            known = ", ".join(map(str, sorted(tracked))) or "none"
            raise PromptError(f"object {unknown[0]} is not tracked; tracked objects: {known}")
        objects = len((tracked - set(removed)) | set(prompts_by_object(prompts)))
        if objects > self._limits.max_objects:
            raise PromptError(
                f"there would be {objects} objects; the limit is {self._limits.max_objects} per "
                "sequence: remove some, or raise max_objects in config.pbtxt"
            )

    def _check_frame(self, frame: Frame) -> None:
        height, width = frame.shape[:2]
        if height * width > self._limits.max_pixels:
            raise SourceError(
                f"a frame is {width} x {height}; the limit is {self._limits.max_pixels:,} pixels: "
                "make it smaller, or raise max_pixels in config.pbtxt"
            )
        if self._frame_size not in (None, (height, width)):
            was_height, was_width = self._frame_size or (0, 0)
            raise SourceError(
                f"a frame is {width} x {height}, but the sequence's frames are {was_width} x "
                f"{was_height}; end the sequence and start another"
            )


class Sequences:
    """All sequences of one model instance.

    Args:
        open_tracker: Opens a tracker for a new sequence.
        limits: What is accepted.
        clock: Seconds, from any start.
    """

    def __init__(
        self,
        open_tracker: Callable[[], VideoTracker],
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_tracker, self._limits, self._clock = open_tracker, limits, clock
        self._open: dict[SequenceId, Sequence] = {}

    def __len__(self) -> int:
        return len(self._open)

    def start(self, sequence_id: SequenceId) -> Sequence:
        """Open a sequence; one with the same id that has not ended is closed.

        Raises:
            SequenceError: If too many are open.
        """
        self.end(sequence_id)
        if len(self._open) >= self._limits.max_sequences:
            raise SequenceError(
                f"{len(self._open)} sequences are open, which is the limit of this model "
                "instance; end one, add instances, or raise max_sequences in config.pbtxt"
            )
        sequence = self._open[sequence_id] = Sequence(self._open_tracker(), self._limits)
        sequence.last_used_s = self._clock()
        return sequence

    def get(self, sequence_id: SequenceId) -> Sequence:
        """Return an open sequence.

        Raises:
            SequenceError: If there is none with this id.
        """
        sequence = self._open.get(sequence_id)
        if sequence is None:
            raise SequenceError(
                f"sequence {sequence_id!r} is not open: its start was refused, or it was idle for "
                f"more than {self._limits.idle_s:g} s; set START on its next frame, with prompts"
            )
        sequence.last_used_s = self._clock()
        return sequence

    def end(self, sequence_id: SequenceId) -> None:
        """Close a sequence, if it is open."""
        sequence = self._open.pop(sequence_id, None)
        if sequence is not None:
            sequence.close()

    def close_idle(self) -> None:
        """Close the sequences that Triton has forgotten, of which it tells nobody."""
        oldest = self._clock() - IDLE_FACTOR * self._limits.idle_s
        for sequence_id, sequence in list(self._open.items()):
            if sequence.last_used_s < oldest:
                self.end(sequence_id)

    def close(self) -> None:
        """Close all sequences."""
        for sequence_id in list(self._open):
            self.end(sequence_id)


def sequence_id_of(request: Any) -> SequenceId:
    """Return the correlation id of a request, which Triton gives as a number or as text."""
    given = request.correlation_id()
    return given if isinstance(given, str) else int(given)
