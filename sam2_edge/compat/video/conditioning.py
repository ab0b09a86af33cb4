"""Which frames an object's memory on a frame is made of, forwards and in reverse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sam2_edge.bundle.contract import Geometry
from sam2_edge.compat.video.spool import FrameOutput
from sam2_edge.compat.video.state import Outputs
from sam2_edge.runtime.memory.slots import closest_frames
from sam2_edge.runtime.model import MemoryInputs

Aged = list[tuple[int, FrameOutput]]
"""Results and their ages in frames."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far memory reaches in a clip.

    clip_frames: frames of the clip. reverse: whether time goes backwards. max_cond: most
    conditioning frames used, the closest in time; None for all. stride: of the memories before the
    last one, take those of every so many frames.
    """

    clip_frames: int
    reverse: bool
    max_cond: int | None = None
    stride: int = 1

    def back(self, frame: int, distance: int) -> int:
        """The frame that was `distance` frames ago."""
        return frame + distance if self.reverse else frame - distance

    def memory_frame(self, frame: int, age: int) -> int:
        """The frame whose memory is the `age`-th last one on `frame` (SAM 2,
        `_prepare_memory_conditioned_features`).
        """
        if age == 1:
            return self.back(frame, 1)
        steps = (age - 2) * self.stride
        if self.reverse:
            return -(-(frame + 2) // self.stride) * self.stride + steps
        return (frame - 2) // self.stride * self.stride - steps


def conditioning(outputs: Outputs, frame: int, reach: Reach, geometry: Geometry) -> MemoryInputs:
    """What an object with these results is conditioned on, on `frame`; it has a conditioning frame.

    Of the conditioning frames, memories whatever their side in time, and the pointers of those that
    are not yet to come. Of the others, the last memories and pointers in the direction of time.
    """
    chosen = _closest(frame, list(outputs.cond), reach.max_cond)
    rest = {t: out for t, out in outputs.cond.items() if t not in chosen}
    past = {**rest, **outputs.non_cond}
    memories = [(0, outputs.cond[t]) for t in sorted(chosen)]
    memories += _aged(
        past, {age: reach.memory_frame(frame, age) for age in range(1, geometry.memory_slots)}
    )
    span = min(reach.clip_frames, geometry.pointers)
    sign = -1 if reach.reverse else 1
    distances = {t: sign * (frame - t) for t in sorted(chosen)}
    pointers = [(d, outputs.cond[t]) for t, d in distances.items() if d >= 0]
    pointers += _aged(past, {age: reach.back(frame, age) for age in range(1, span)})
    ages = np.array([[age] for age, _ in pointers], np.float32).reshape(-1, 1)
    return MemoryInputs(
        memory=np.stack([out.memory[None] for _, out in memories]),
        memory_age=np.array([[age] for age, _ in memories], np.int32),
        pointers=np.array([[out.pointer] for _, out in pointers], np.float32).reshape(
            -1, 1, geometry.hidden
        ),
        pointer_age=ages / np.float32(max(span - 1, 1)),
        memory_cells=None
        if geometry.memory_tokens is None
        else np.stack([out.memory_cells[None] for _, out in memories]),
    )


def _closest(frame: int, cond: list[int], limit: int | None) -> set[int]:
    return set(cond) if limit is None else closest_frames(frame, cond, limit)


def _aged(outputs: dict[int, FrameOutput], frames: dict[int, int]) -> Aged:
    """The results there are of `frames`, by age."""
    return [(age, outputs[t]) for age, t in frames.items() if t in outputs]
