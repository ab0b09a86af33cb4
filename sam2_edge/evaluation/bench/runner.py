"""Runs targets interleaved on the same frames, so that a noisy machine does not bias the results.

All targets track every frame, in an order that reverses from frame to frame (A B, B A, ...), and
the ratios of their times are taken frame by frame: a disturbance affects all targets. Except for
`by_fill`, only frames with full memory count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sam2_edge.evaluation.bench.limits import FILLING_FRAMES, MIN_COUNTED, UNCOUNTED_FRAMES
from sam2_edge.evaluation.bench.targets import WHOLE, BenchTarget, Times
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.prompts import Prompt


@dataclass(frozen=True, slots=True)
class LatencyStats:
    """Median, 95th and 99th percentiles of times or ratios."""

    median: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> LatencyStats:
        """Compute the statistics of at least one value."""
        return cls(*(float(np.percentile(values, q)) for q in (50, 95, 99)))


@dataclass(slots=True)
class InterleavedRun:
    """Number of tracked objects, and the times of every frame by target."""

    objects: int
    times: dict[str, list[Times]] = field(default_factory=dict)

    def stages(self, name: str) -> dict[str, LatencyStats]:
        """Return the milliseconds of every stage of a target."""
        counted = self.times[name][UNCOUNTED_FRAMES:]
        stages = dict.fromkeys(stage for times in counted for stage in times)
        return {s: LatencyStats.of([times.get(s, 0.0) for times in counted]) for s in stages}

    def fastest(self, name: str, stage: str) -> float | None:
        """Return the least milliseconds of a stage; None if it never ran."""
        counted = self.times[name][UNCOUNTED_FRAMES:]
        return min((times[stage] for times in counted if times.get(stage)), default=None)

    def whole(self, name: str) -> list[float]:
        """Return the milliseconds of each whole frame."""
        return [times[WHOLE] for times in self.times[name][UNCOUNTED_FRAMES:]]

    def frames_per_second(self, name: str) -> float:
        """Return the mean number of frames per second."""
        return 1e3 / float(np.mean(self.whole(name)))

    def ratio(self, name: str, other: str) -> LatencyStats:
        """Return the time of `other` divided by the time of `name`, frame by frame."""
        pairs = zip(self.whole(other), self.whole(name), strict=True)
        return LatencyStats.of([theirs / ours for theirs, ours in pairs])

    def by_fill(self, name: str) -> list[tuple[int, float]]:
        """Return (number of previous frames, milliseconds) for the frames while memory fills."""
        return [(n, times[WHOLE]) for n, times in enumerate(self.times[name][:FILLING_FRAMES])]


def run_interleaved(
    targets: Sequence[BenchTarget],
    frames: Sequence[Frame],
    prompts: Sequence[Prompt],
    *,
    on_progress: Callable[[], None] = lambda: None,
) -> InterleavedRun:
    """Track the same frames with all targets, interleaved.

    Args:
        targets: Targets with unique names.
        frames: At least `UNCOUNTED_FRAMES` + `MIN_COUNTED`.
        prompts: For the first frame.
        on_progress: Called after every frame.

    Raises:
        ValueError: If there are too few frames.
    """
    required = UNCOUNTED_FRAMES + MIN_COUNTED
    if len(frames) < required:
        raise ValueError(f"{len(frames)} frames; give {required} or more")
    run = InterleavedRun(len(prompts), {target.name: [] for target in targets})
    for target in targets:
        target.reset()
    for index, frame in enumerate(frames):
        on_frame = prompts if index == 0 else ()
        for target in targets if index % 2 == 0 else reversed(targets):
            run.times[target.name].append(target.step(frame, on_frame))
        on_progress()
    return run
