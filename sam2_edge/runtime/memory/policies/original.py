"""The published policy: the decoder's own choice, and the last frames as they are."""

from __future__ import annotations

from dataclasses import dataclass

from sam2_edge.runtime.memory.slots import RecentFrames


@dataclass(frozen=True, slots=True)
class OriginalMemory:
    """Memory as in the published predictor (SAM 2, section 4); exact."""

    @property
    def name(self) -> str:
        """Name in messages."""
        return "original"

    def slots(self, trained: int, requested: int | None) -> RecentFrames:
        """Return the last frames, as many as trained or requested."""
        return RecentFrames(trained if requested is None else requested)

    def follow(self) -> None:
        """Return nothing: no object needs a policy of its own."""
        return
