"""What people do with the objects of a loop: each action can be undone and redone.

An `Editor` belongs to the thread that tracks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam2_edge.errors import PromptError
from sam2_edge.runtime.memory.saved import SavedObject
from sam2_edge.runtime.results import ObjectResult
from sam2_edge.runtime.tracker import VideoTracker

MAX_STEPS = 20
"""Actions that can be undone. Each keeps up to 10 memories of an object on the host: 5 to 10 MB for
a model at 1024 pixels."""

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True)
class Clicks:
    """The prompt of an object on the current frame, in pixels of the frame.

    Attributes:
        points: x, y and label (1 foreground, 0 background) of each click.
        box: x1, y1, x2, y2, or None.
    """

    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class EditState:
    """What can be said about the edits after a frame.

    Attributes:
        clicks: Prompts on this frame, by object id.
        undo: What `undo` would take back, such as "box around cup"; None for nothing.
        redo: What `redo` would bring back.
    """

    clicks: dict[int, Clicks]
    undo: str | None
    redo: str | None


@dataclass(frozen=True, slots=True)
class _Object:
    """An object before an action; `saved` is None if it was not tracked."""

    saved: SavedObject | None
    clicks: Clicks | None
    frame: int


@dataclass(frozen=True, slots=True)
class _Step:
    """An action, and what was before it: whole objects, or the name of one."""

    label: str
    objects: dict[int, _Object]
    name: tuple[int, str] | None = None


class Editor:
    """Edits the objects of a tracker, and remembers how to undo that.

    Args:
        tracker: The tracker.
        max_objects: Objects up to which new ones may be added; None for no limit.
    """

    def __init__(self, tracker: VideoTracker, *, max_objects: int | None) -> None:
        self._tracker, self._max_objects = tracker, max_objects
        self._clicks: dict[int, Clicks] = {}
        self._frame = 0
        self._done: deque[_Step] = deque(maxlen=MAX_STEPS)
        self._undone: list[_Step] = []

    @property
    def state(self) -> EditState:
        """A copy of the state, for other threads."""
        undo = self._done[-1].label if self._done else None
        redo = self._undone[-1].label if self._undone else None
        return EditState(dict(self._clicks), undo, redo)

    def advance(self) -> None:
        """Begin the next frame, on which there are no clicks yet."""
        self._frame += 1
        self._clicks.clear()

    def prompt(
        self,
        object_id: int,
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: NDArray[Any] | None = None,
    ) -> ObjectResult:
        """Add or refine an object; see `VideoTracker.prompt`.

        Raises:
            PromptError: If the prompt is invalid, or one of a new object beyond `max_objects`.
        """
        kind = "mask of" if mask is not None else "box around" if points is None else "click on"

        def act() -> ObjectResult:
            self._check_room(object_id)
            result = self._tracker.prompt(
                object_id, points=points, labels=labels, box=box, mask=mask
            )
            self._clicks[object_id] = _clicks(points, labels, box)
            return result

        return self._do(kind, [object_id], act)

    def click(self, object_id: int, x: float, y: float, *, foreground: bool) -> ObjectResult:
        """Prompt an object with one more click, in addition to its prompt on this frame.

        Raises:
            PromptError: As `prompt`.
        """
        given = self._clicks.get(object_id, Clicks())
        points = (*given.points, (x, y, int(foreground)))
        return self.prompt(
            object_id,
            points=[point[:2] for point in points],
            labels=[point[2] for point in points],
            box=given.box,
        )

    def remove(self, object_id: int) -> None:
        """Stop tracking an object.

        Raises:
            PromptError: If it is not tracked.
        """
        self._do("removal of", [object_id], lambda: self._forget(object_id))

    def reset(self) -> None:
        """Stop tracking every object."""

        def act() -> None:
            for object_id in self._tracker.object_ids:
                self._forget(object_id)

        if self._tracker.object_ids:
            self._do("reset", self._tracker.object_ids, act)

    def rename(self, object_id: int, name: str) -> None:
        """Name an object; see `VideoTracker.rename`.

        Raises:
            PromptError: If it is not tracked, or this cannot be a name.
        """
        before = self._tracker.names.get(object_id, "")
        self._tracker.rename(object_id, name)
        self._push(_Step(f"name of object {object_id}", {}, (object_id, before)))

    def undo(self) -> None:
        """Take back the last action.

        On the frame of the action, everything is as before. If the video has moved on, the object
        is tracked from the memory that it had; see `VideoTracker.restore`.

        Raises:
            PromptError: If there is none.
        """
        if not self._done:
            raise PromptError("there is nothing to undo")
        self._undone.append(self._swap(self._done.pop()))

    def redo(self) -> None:
        """Bring back the last action that was undone, until another action is taken.

        Raises:
            PromptError: If there is none.
        """
        if not self._undone:
            raise PromptError("there is nothing to redo")
        self._done.append(self._swap(self._undone.pop()))

    def _do(self, kind: str, object_ids: Iterable[int], action: Callable[[], Outcome]) -> Outcome:
        before = {object_id: self._object(object_id) for object_id in object_ids}
        label = kind
        if kind != "reset":
            (object_id,) = before
            label = f"{kind} {self._tracker.names.get(object_id) or f'object {object_id}'}"
        outcome = action()
        self._push(_Step(label, before))
        return outcome

    def _push(self, step: _Step) -> None:
        self._done.append(step)
        self._undone.clear()

    def _swap(self, step: _Step) -> _Step:
        """Return to what was before a step, and return the step back."""
        if step.name is not None:
            object_id, name = step.name
            now = self._tracker.names.get(object_id, "")
            self._tracker.rename(object_id, name)
            return _Step(step.label, {}, (object_id, now))
        now_objects = {object_id: self._object(object_id) for object_id in step.objects}
        for object_id, before in step.objects.items():
            self._bring_back(object_id, before)
        return _Step(step.label, now_objects)

    def _object(self, object_id: int) -> _Object:
        is_tracked = object_id in self._tracker.object_ids
        return _Object(
            self._tracker.save(object_id) if is_tracked else None,
            self._clicks.get(object_id),
            self._frame,
        )

    def _bring_back(self, object_id: int, before: _Object) -> None:
        if before.saved is not None:
            self._tracker.restore(before.saved)
        elif object_id in self._tracker.object_ids:
            self._tracker.remove(object_id)
        self._clicks.pop(object_id, None)
        if before.clicks is not None and before.frame == self._frame:
            self._clicks[object_id] = before.clicks

    def _forget(self, object_id: int) -> None:
        self._tracker.remove(object_id)
        self._clicks.pop(object_id, None)

    def _check_room(self, object_id: int) -> None:
        tracked = self._tracker.object_ids
        limit = len(tracked) + 1 if self._max_objects is None else self._max_objects
        if object_id not in tracked and len(tracked) >= limit:
            raise PromptError(
                f"{len(tracked)} of at most {limit} objects are tracked; remove one first"
            )


def _clicks(points: ArrayLike | None, labels: ArrayLike | None, box: ArrayLike | None) -> Clicks:
    """Return a prompt that the tracker has accepted."""
    coords = np.zeros((0, 2)) if points is None else np.asarray(points, float).reshape(-1, 2)
    signs = np.ones(len(coords)) if labels is None else np.asarray(labels).reshape(-1)
    return Clicks(
        tuple((float(x), float(y), int(sign)) for (x, y), sign in zip(coords, signs, strict=True)),
        None if box is None else tuple(np.asarray(box, float).reshape(-1).tolist()),
    )
