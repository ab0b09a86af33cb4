"""Which frames an object's memory on a frame is made from, forward and in reverse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sam2_edge.bundle.contract import Geometry
from sam2_edge.compat.video.spool import StoredOutput
from sam2_edge.compat.video.state import FrameOutputs
from sam2_edge.runtime.memory.slots import closest_frames
from sam2_edge.runtime.model import MemoryInputs


@dataclass(frozen=True, slots=True)
class MemoryReach:
    """How far memory reaches in a clip.

    Attributes:
        clip_frames: Number of frames of the clip.
        reverse: Whether time runs backwards.
        max_cond: Conditioning frames used, the closest in time; None for all.
        stride: Distance in frames between the memories before the last one.
    """

    clip_frames: int
    reverse: bool
    max_cond: int | None = None
    stride: int = 1

    def back(self, frame: int, distance: int) -> int:
        """Return the frame that was `distance` frames ago."""
        return frame + distance if self.reverse else frame - distance

    def memory_frame(self, frame: int, age: int) -> int:
        """Return the frame of the `age`-th last memory (SAM 2,
        `_prepare_memory_conditioned_features`).
        """
        if age == 1:
            return self.back(frame, 1)
        steps = (age - 2) * self.stride
        if self.reverse:
            return -(-(frame + 2) // self.stride) * self.stride + steps
        return (frame - 2) // self.stride * self.stride - steps


def memory_inputs(
    outputs: FrameOutputs, frame: int, reach: MemoryReach, geometry: Geometry
) -> MemoryInputs:
    """Return the memory of an object on `frame`; it must have a conditioning frame.

    Conditioning frames give memories whatever their side in time, and pointers if they are not in
    the future. The latest other frames in the direction of time give both.
    """
    cond = list(outputs.cond)
    chosen = sorted(cond if reach.max_cond is None else closest_frames(frame, cond, reach.max_cond))
    past = {t: out for t, out in outputs.cond.items() if t not in chosen} | outputs.non_cond
    memories = [(0, outputs.cond[t]) for t in chosen]
    memories += _aged(
        past, {age: reach.memory_frame(frame, age) for age in range(1, geometry.memory_slots)}
    )
    span = min(reach.clip_frames, geometry.pointers)
    sign = -1 if reach.reverse else 1
    pointers = [(sign * (frame - t), outputs.cond[t]) for t in chosen if sign * (frame - t) >= 0]
    pointers += _aged(past, {age: reach.back(frame, age) for age in range(1, span)})
    ages = np.array([[age] for age, _ in pointers], np.float32).reshape(-1, 1)
    return MemoryInputs(
        memory=np.stack([out.memory for _, out in memories]),
        memory_rows=np.arange(len(memories), dtype=np.int32)[:, None],
        memory_age=np.array([[age] for age, _ in memories], np.int32),
        pointers=np.array([[out.pointer] for _, out in pointers], np.float32).reshape(
            -1, 1, geometry.hidden
        ),
        pointer_age=ages / np.float32(max(span - 1, 1)),
        memory_cells=None
        if geometry.memory_tokens is None
        else np.stack([out.memory_cells[None] for _, out in memories]),
    )


def _aged(
    outputs: dict[int, StoredOutput], frames: dict[int, int]
) -> list[tuple[int, StoredOutput]]:
    """Return the outputs of `frames`, which are given by age, as far as they exist."""
    return [(age, outputs[t]) for age, t in frames.items() if t in outputs]
