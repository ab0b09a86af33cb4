"""Memory policies: which of the decoder's masks is taken, and which frames are remembered."""

from __future__ import annotations

from typing import Literal, get_args

from sam2_edge.errors import Sam2EdgeError
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

MemoryPolicyName = Literal["original", "motion", "distractor"]
"""The policies that come with their published settings."""

LARGE_MOTION_WEIGHT = 0.15
"""Weight of motion for the large models, 0.25 for the others: the published configuration."""


def open_policy(policy: MemoryPolicyName | MemoryPolicy, model: str) -> MemoryPolicy:
    """A policy by its name, as published for a model of that name, or the one that is given.

    Raises Sam2EdgeError for an unknown name.
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


def policy_slots(policy: MemoryPolicy, trained: int, asked: int | None) -> SlotPolicy:
    """Which unprompted memories count under a policy; see `MemoryPolicy.slots`.

    Raises Sam2EdgeError where the policy wants more than the model was trained with.
    """
    rule = policy.slots(trained, asked)
    if rule.most > trained:
        raise Sam2EdgeError(
            f"the memory policy {policy.name} keeps {rule.most} unprompted memories; the model was "
            f"trained with {trained}, give that or less"
        )
    return rule
