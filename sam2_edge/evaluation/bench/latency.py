"""How measured values are spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class LatencyStats:
    """Of some times or ratios: median, and the values that 95 and 99 of 100 do not exceed."""

    median: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> LatencyStats:
        """Of at least one value."""
        return cls(*(float(np.percentile(values, q)) for q in (50, 95, 99)))
