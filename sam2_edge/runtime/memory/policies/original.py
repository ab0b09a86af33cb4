"""The published policy: the decoder's own choice of mask, and the most recent frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sam2_edge.runtime.memory.slots import RecentFrames


@dataclass(frozen=True, slots=True)
class OriginalMemory:
    """Memory exactly as in the published predictor (SAM 2, section 4)."""

    name: ClassVar[str] = "original"

    def slots(self, trained: int, requested: int | None) -> RecentFrames:
        """Return the last frames, as many as trained or requested."""
        return RecentFrames(trained if requested is None else requested)

    def follow(self) -> None:
        """Return None: no object needs a policy of its own."""
        return
