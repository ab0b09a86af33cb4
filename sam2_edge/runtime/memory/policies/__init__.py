"""Memory policies: which of the decoder's masks to use, and which frames to remember."""

from __future__ import annotations

from typing import get_args

from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.choices import MemoryPolicyName
from sam2_edge.runtime.memory.policies.base import (
    MaskCandidates,
    MemoryPolicy,
    ObjectPolicy,
    Outcome,
)
from sam2_edge.runtime.memory.policies.distractor import DistractorMemory
from sam2_edge.runtime.memory.policies.motion import MotionMemory
from sam2_edge.runtime.memory.policies.original import OriginalMemory
from sam2_edge.runtime.memory.slots import SlotPolicy

__all__ = [
    "DistractorMemory",
    "MaskCandidates",
    "MemoryPolicy",
    "MemoryPolicyName",
    "MotionMemory",
    "ObjectPolicy",
    "OriginalMemory",
    "Outcome",
    "open_policy",
    "policy_slots",
]

LARGE_MOTION_WEIGHT = 0.15
"""Published weight of motion for the large models; 0.25 for the others."""


def open_policy(policy: MemoryPolicyName | MemoryPolicy, model: str) -> MemoryPolicy:
    """Return the policy of a name, with the published settings for `model`.

    A policy object is returned unchanged.

    Raises:
        Sam2EdgeError: If the name is unknown.
    """
    if not isinstance(policy, str):
        return policy
    if policy == "original":
        return OriginalMemory()
    if policy == "distractor":
        return DistractorMemory()
    if policy == "motion":
        return MotionMemory(weight=LARGE_MOTION_WEIGHT) if "large" in model else MotionMemory()
    names = ", ".join(get_args(MemoryPolicyName))
    raise Sam2EdgeError(f"memory_policy is {policy!r}; give one of {names}, or a policy object")


def policy_slots(policy: MemoryPolicy, trained: int, requested: int | None) -> SlotPolicy:
    """Return a policy's slots; see `MemoryPolicy.slots`.

    Raises:
        Sam2EdgeError: If the policy keeps more memories than the model was trained with.
    """
    slots = policy.slots(trained, requested)
    if slots.max_slots > trained:
        raise Sam2EdgeError(
            f"the memory policy {policy.name} keeps {slots.max_slots} unprompted memories; the "
            f"model was trained with {trained}; give that or fewer"
        )
    return slots
