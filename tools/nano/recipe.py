"""What the bundled model is trained on, phase by phase."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training.

    steps: optimizer steps. size: pixels. clips, frames, objects: per batch, per clip, per clip.
    rate: learning rate at the start, falling linearly to `rate * fall` at the end. corrected:
    share of batches with a correcting click on a later frame. pool: number of different clips that
    are drawn from and kept in memory (turned, mirrored, recolored anew), or 0 for new ones always.
    span: length of the scenes that clips are cut from. lost: share of clips that are drawn anew, a
    few times, until an object is out of sight in one of their frames, which is rare in short clips.
    """

    name: str
    steps: int
    size: int
    clips: int
    frames: int
    objects: int
    rate: float
    fall: float = 1.0
    corrected: float = 0.0
    pool: int = 0
    span: int | None = None
    lost: float = 0.0


WARM_UP = 200
"""Steps over which the learning rate rises from zero at the very start."""

RECIPE = (
    Phase("images", 5500, 128, 16, 1, 3, rate=1e-3, pool=20_000),
    Phase("short clips", 1600, 128, 10, 4, 2, rate=7e-4, corrected=0.15, span=32),
    Phase("clips", 1100, 256, 6, 4, 2, rate=6e-4, corrected=0.15, span=32),
    Phase("large images", 2500, 256, 12, 1, 3, rate=8e-4, fall=0.6),
    Phase(
        "longer clips", 1100, 256, 3, 8, 2, rate=6e-4, fall=0.7, corrected=0.2, span=32, lost=0.6
    ),
    Phase("long clips", 900, 256, 2, 18, 2, rate=5e-4, fall=0.05, corrected=0.2, span=32, lost=0.5),
    Phase("more clips", 1800, 256, 3, 12, 2, rate=6e-4, fall=0.6, corrected=0.2, span=32, lost=0.4),
    Phase("last clips", 350, 256, 2, 20, 2, rate=4e-4, fall=0.03, corrected=0.2, span=32, lost=0.4),
)
