"""What a tracker knows of one object, copied to the host so that it can return to it."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.memory.policies.base import ObjectPolicy, Outcome
from sam2_edge.runtime.memory.slots import MemorySlot, PointerSlot


@dataclass(frozen=True, slots=True)
class SavedMemories:
    """An object's entry in the memory bank.

    Attributes:
        frozen: Number of frames that did not age the object.
        memories: Slots, whose rows mean nothing here, and their memories [m, h, w].
        pointers: Slots with their pointers.
    """

    frozen: int
    memories: tuple[tuple[MemorySlot, NDArray[Any]], ...]
    pointers: tuple[PointerSlot, ...]


@dataclass(frozen=True, slots=True)
class SavedDecoding:
    """An object's result on the current frame, before it is written to the bank.

    Attributes:
        mask_logits: [1, 1, s, s].
        pointer: [1, C].
        object_score: [1].
        iou: [1].
        conditioning: Whether this is a conditioning frame of the object.
        from_prompt: Whether the mask comes from a prompt.
        memory_cells: [1, N] int32, or None for all.
        memory: [m, h, w], as the next frame would find it in the bank.
    """

    mask_logits: NDArray[Any]
    pointer: NDArray[Any]
    object_score: NDArray[Any]
    iou: NDArray[Any]
    conditioning: bool
    from_prompt: bool
    memory_cells: NDArray[np.int32] | None
    memory: NDArray[Any]


@dataclass(frozen=True, slots=True)
class SavedObject:
    """One object of a tracker; see `VideoTracker.save`.

    Attributes:
        object_id: Its id.
        name: Its name, or empty.
        frame_index: Number of the frame on which it was saved.
        image: That frame, as long as the tracker keeps it.
        tracked: Whether it was tracked from memory there before it was prompted.
        decoding: Its result there.
        memories: Its entry in the bank; None if it was added on this frame.
        policy: Its memory policy and the policy's view of this frame; None for the published rule.
    """

    object_id: int
    name: str
    frame_index: int
    image: weakref.ref[NDArray[np.uint8]]
    tracked: bool
    decoding: SavedDecoding
    memories: SavedMemories | None
    policy: tuple[ObjectPolicy, Outcome | None] | None
