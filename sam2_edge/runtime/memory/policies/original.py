"""The published rule: the decoder's own choice, and the last frames as they are."""

from __future__ import annotations

from dataclasses import dataclass

from sam2_edge.runtime.memory.slots import RecentFrames


@dataclass(frozen=True, slots=True)
class OriginalMemory:
    """Memory as in the published predictor (SAM 2, section 4); exact."""

    @property
    def name(self) -> str:
        """See `MemoryPolicy.name`."""
        return "original"

    def slots(self, trained: int, asked: int | None) -> RecentFrames:
        """See `MemoryPolicy.slots`."""
        return RecentFrames(trained if asked is None else asked)

    def follow(self) -> None:
        """See `MemoryPolicy.follow`."""
        return
