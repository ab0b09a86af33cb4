"""The training recipe of the bundled model, phase by phase."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training.

    Attributes:
        steps: Optimizer steps.
        size: Side of the frames, pixels.
        clips: Per batch.
        frames: Per clip.
        objects: Per clip.
        rate: Learning rate at the start; it falls linearly to `rate * fall`.
        corrected: Share of batches with a correcting click on a later frame.
        pool: Number of different clips, kept in memory and augmented at each use; 0 for new clips
            only.
        span: Length of the scenes that clips are cut from.
        lost: Share of clips that are redrawn a few times until an object leaves the picture, which
            is rare in short clips.
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
