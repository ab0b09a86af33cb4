"""What a camera loop does, in numbers: for logs, metrics and the browser."""

from __future__ import annotations

import os
import statistics
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sam2_edge.runtime.streaming.loop import CameraLoop, LoopResult

WINDOW_S = 5.0
"""Rates and ages are over the last so many seconds."""


@dataclass(slots=True)
class Meter:
    """Follows one loop: call `see` with every result."""

    loop: CameraLoop
    _seen: deque[tuple[float, float, float]] = field(default_factory=lambda: deque(maxlen=1000))
    _objects: dict[int, bool] = field(default_factory=dict)

    def see(self, tracked: LoopResult) -> None:
        """Take one result into account."""
        self._objects = {o.object_id: o.present for o in tracked.result.objects}
        if tracked.again:
            return
        self._seen.append((time.monotonic(), tracked.latency_s, tracked.result.milliseconds))

    def snapshot(self) -> dict[str, Any]:
        """Counts since the start; medians over the last seconds: "fps" of tracked frames, "age_ms"
        from capture to result, "tracking_ms"; 0 where there was none; "resident_mb" of the process.
        """
        now = time.monotonic()
        recent = [entry for entry in list(self._seen) if now - entry[0] <= WINDOW_S]
        span = now - recent[0][0] if recent else 0.0
        return {
            **asdict(self.loop.counts),
            "tracked": self.loop.tracked,
            "unwritten": self.loop.output.skipped,
            "output_failures": self.loop.output.failures,
            "objects": len(self._objects),
            "present": sum(self._objects.values()),
            "fps": round((len(recent) - 1) / span, 2) if len(recent) > 1 and span > 0 else 0.0,
            "age_ms": _median_ms([age * 1e3 for _, age, _ in recent]),
            "tracking_ms": _median_ms([ms for _, _, ms in recent]),
            "resident_mb": round(resident_bytes() / 2**20, 1),
        }


def resident_bytes() -> int:
    """Memory of this process that is in RAM; 0 where the system is not Linux."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _median_ms(values: list[float]) -> float:
    return round(statistics.median(values), 1) if values else 0.0
