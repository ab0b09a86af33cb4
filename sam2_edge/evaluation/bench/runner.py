"""Racing contenders on the same frames, in turns, so that a noisy machine does not decide.

On every frame each contender tracks once, in an order that is turned round from frame to frame
(A B, B A, ...), and the ratio of their times on that frame is taken: what disturbs the machine
disturbs both. Figures are of frames on which the memory is full, unless they are by its fill.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sam2_edge.evaluation.bench.latency import LatencyStats
from sam2_edge.evaluation.bench.targets import WHOLE, BenchTarget, Times
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.prompts import Prompt

FILLING_FRAMES = 16
"""Frames until the memory of SAM 2 is full: one prompted frame and 15 more with a pointer."""

UNCOUNTED_FRAMES = FILLING_FRAMES + 8
"""On the first frames with a full memory backends still compile, capture and make room."""

MIN_COUNTED = 10
"""Frames that are measured."""


@dataclass(slots=True)
class Race:
    """Times of every contender, frame by frame."""

    objects: int
    times: dict[str, list[Times]] = field(default_factory=dict)

    def stages(self, name: str) -> dict[str, LatencyStats]:
        """Milliseconds of every stage of a contender with a full memory."""
        full = self.times[name][UNCOUNTED_FRAMES:]
        stages = {stage: None for times in full for stage in times}
        return {s: LatencyStats.of([times.get(s, 0.0) for times in full]) for s in stages}

    def whole(self, name: str) -> list[float]:
        """Milliseconds of the whole frame, with a full memory."""
        return [times[WHOLE] for times in self.times[name][UNCOUNTED_FRAMES:]]

    def frames_per_second(self, name: str) -> float:
        """With a full memory."""
        return 1e3 / float(np.mean(self.whole(name)))

    def ratio(self, name: str, other: str) -> LatencyStats:
        """How many times as long `other` takes, of all frames one by one."""
        pairs = zip(self.whole(other), self.whole(name), strict=True)
        return LatencyStats.of([theirs / ours for theirs, ours in pairs])

    def by_fill(self, name: str) -> list[tuple[int, float]]:
        """Frames behind (memories are those, up to 7) and milliseconds, while the memory fills."""
        return [(n, times[WHOLE]) for n, times in enumerate(self.times[name][:FILLING_FRAMES])]


def race(
    contenders: Sequence[BenchTarget],
    frames: Sequence[Frame],
    prompts: Sequence[Prompt],
    *,
    watch: Callable[[], None] = lambda: None,
) -> Race:
    """Let all track the frames in turns; the prompts are on the first.

    watch: called after every frame.

    Raises ValueError for fewer frames than are needed to measure `MIN_COUNTED`.
    """
    if len(frames) < UNCOUNTED_FRAMES + MIN_COUNTED:
        least = UNCOUNTED_FRAMES + MIN_COUNTED
        raise ValueError(f"{len(frames)} frames; give {least} or more")
    found = Race(len(prompts), {c.name: [] for c in contenders})
    for contender in contenders:
        contender.reset()
    for index, frame in enumerate(frames):
        given = prompts if index == 0 else ()
        for contender in contenders if index % 2 == 0 else reversed(contenders):
            found.times[contender.name].append(contender.step(frame, given))
        watch()
    return found
