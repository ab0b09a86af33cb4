"""Checks of the numbers with which a tracker is opened."""

from __future__ import annotations

import numpy as np

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.errors import BackendError, Sam2EdgeError


def check_numbers(**numbers: int | None) -> None:
    """Raise Sam2EdgeError unless every number is an integer of at least 1, or None."""
    for name, value in numbers.items():
        if value is not None and not (isinstance(value, int | np.integer) and value >= 1):
            raise Sam2EdgeError(f"{name} is {value!r}; give 1 or more, as an integer")


def check_memories(bundle: Bundle, max_cond_frames: int, recent_memories: int | None) -> None:
    """Check numbers of memories against what the model and its engines were made for.

    Raises:
        Sam2EdgeError: If there are more recent memories than the model was trained with.
        BackendError: If memory may outgrow what the engines were built for.
    """
    trained = bundle.manifest.geometry.recent_memories
    if recent_memories is not None and recent_memories > trained:
        raise Sam2EdgeError(
            f"recent_memories is {recent_memories}; the model was trained with {trained}, give "
            "that or less"
        )
    limit = bundle.max_size(Graph.MEMORY_ATTENTION, "M")
    allowed = None if limit is None else limit - trained
    if allowed is not None and max_cond_frames > allowed:
        raise BackendError(
            f"max_cond_frames is {max_cond_frames}; the engines of {bundle.path} were built for "
            f"{allowed}; lower it"
        )
