"""What a tracker is told to do in the tests of the late device, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from sam2_edge import ObjectResult, Prompt, VideoTracker
from sam2_edge.runtime.results import full_size
from tests.helpers.clips import moving_shapes

DISC = Prompt(1, points=[(34, 38)])
SQUARE = Prompt(2, box=(80, 70, 125, 120))

UNDECIDED = 1e-5
"""Logits this close to zero may come out on either side: a GPU resizes masks by two products, a
CPU with OpenCV."""

Script = Callable[[VideoTracker], Iterator[Sequence[ObjectResult]]]


@dataclass(frozen=True)
class Answer:
    """The result for one object; `logits` only where they were asked for."""

    object_id: int
    mask: NDArray[np.bool_]
    iou: float
    object_score: float
    logits: NDArray[np.float32] | None


def answers(script: Script, tracker: VideoTracker, *, logits_every: int) -> list[list[Answer]]:
    """Run a script, reading logits at regular intervals."""
    return list(_each_answer(script, tracker, logits_every))


def answers_in_turn(
    parts: Iterable[tuple[Script, VideoTracker]], *, logits_every: int
) -> list[list[list[Answer]]]:
    """Run scripts step by step, one step of each in turn, and return the answers of each."""
    running = [_each_answer(script, tracker, logits_every) for script, tracker in parts]
    turns = list(zip_longest(*running))
    return [
        [answer for answer in found if answer is not None] for found in zip(*turns, strict=True)
    ]


def _each_answer(
    script: Script, tracker: VideoTracker, logits_every: int
) -> Iterator[list[Answer]]:
    for step, results in enumerate(script(tracker)):
        wanted = step % logits_every == logits_every - 1
        yield [
            Answer(r.object_id, r.mask, r.iou, r.object_score, r.logits if wanted else None)
            for r in results
        ]


def assert_equal(late: list[list[Answer]], cpu: list[list[Answer]]) -> None:
    """Compare bit by bit; masks of a GPU may differ where the CPU's logits are almost zero."""
    assert len(late) == len(cpu)
    for step, (ours, theirs) in enumerate(zip(late, cpu, strict=True)):
        assert [a.object_id for a in ours] == [a.object_id for a in theirs]
        for a, b in zip(ours, theirs, strict=True):
            where = f"object {a.object_id} in step {step}"
            assert (a.iou, a.object_score) == (b.iou, b.object_score), where
            assert b.logits is not None
            if a.logits is not None:
                np.testing.assert_array_equal(a.logits, b.logits, where)
            undecided = np.abs(full_size(b.logits, b.mask.shape)) < UNDECIDED
            np.testing.assert_array_equal(a.mask | undecided, b.mask | undecided, where)


def frames(count: int, size: tuple[int, int] = (128, 128)) -> Iterable[NDArray[np.uint8]]:
    return moving_shapes(count, size).frames


def one_object(tracker: VideoTracker) -> Iterator[Sequence[ObjectResult]]:
    """60 frames: after 17 they need the same work, in 7 variants."""
    for index, frame in enumerate(frames(60)):
        yield tracker.track(frame, [DISC] if index == 0 else []).objects


def two_objects(tracker: VideoTracker) -> Iterator[Sequence[ObjectResult]]:
    for index, frame in enumerate(frames(60)):
        yield tracker.track(frame, [DISC, SQUARE] if index == 0 else []).objects


def come_and_go(tracker: VideoTracker) -> Iterator[Sequence[ObjectResult]]:
    """1, 2, 4, 9 and no objects, with frames whose masks are not a multiple of 8 pixels wide."""
    size = (75, 101)
    box = Prompt(2, box=(50, 30, 95, 70))
    added = {0: [DISC], 3: [box], 6: clicks(3, 4), 9: clicks(5, 9), 17: [DISC]}
    removed = {12: range(2, 10), 14: [1], 22: [1]}
    for index, frame in enumerate(frames(26, size)):
        for object_id in removed.get(index, ()):
            tracker.remove(object_id)
        yield tracker.track(frame, added.get(index, [])).objects


def refined(tracker: VideoTracker) -> Iterator[Sequence[ObjectResult]]:
    """Points, boxes and masks on frames that have been tracked, also several of them."""
    mask = np.zeros((128, 128), np.bool_)
    mask[60:100, 70:110] = True
    for index, frame in enumerate(frames(24)):
        yield tracker.track(frame, [DISC, SQUARE] if index == 0 else []).objects
        if index == 5:
            yield [tracker.prompt(1, points=[(40, 40), (90, 90)], labels=[1, 0])]
            yield [tracker.prompt(1, points=[(40, 40), (90, 90), (44, 30)], labels=[1, 0, 1])]
        if index == 9:
            yield [tracker.prompt(2, mask=mask)]
        if index == 12:
            yield [tracker.prompt(3, mask=mask)]
            yield tracker.result().objects


def started_over(tracker: VideoTracker) -> Iterator[Sequence[ObjectResult]]:
    """Three objects; one is prompted again mid-stream, so the numbers of memories differ."""
    for index, frame in enumerate(frames(40)):
        prompts = {0: [DISC, SQUARE, *clicks(3, 3)], 20: [SQUARE]}
        yield tracker.track(frame, prompts.get(index, [])).objects


def leaves(tracker: VideoTracker) -> Iterator[Sequence[ObjectResult]]:
    """Both objects are out of the picture for a while."""
    pictures = [*moving_shapes(10).frames, *moving_shapes(16, leaves_at=0).frames, *frames(6)]
    for index, frame in enumerate(pictures):
        yield tracker.track(frame, [DISC, SQUARE] if index == 0 else []).objects


def clicks(first: int, last: int) -> list[Prompt]:
    return [Prompt(i, points=[(9 * i, 60 - 3 * i)]) for i in range(first, last + 1)]
