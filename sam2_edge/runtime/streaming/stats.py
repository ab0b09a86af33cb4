"""Statistics of a camera loop, for logs, metrics and the browser."""

from __future__ import annotations

import os
import statistics
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sam2_edge.runtime.streaming.loop import CameraLoop, LoopResult

WINDOW_S = 5.0
"""Window for rates and latencies, seconds."""


class LoopStats:
    """Statistics of one loop; `observe` must be called with every result."""

    def __init__(self, loop: CameraLoop) -> None:
        self.loop = loop
        self._recent: deque[tuple[float, float, float]] = deque(maxlen=1000)
        self._present: dict[int, bool] = {}

    def observe(self, tracked: LoopResult) -> None:
        """Update the statistics with one result."""
        self._present = {entry.object_id: entry.present for entry in tracked.result.objects}
        if not tracked.updated:
            times_ms = (1e3 * tracked.latency_s, tracked.result.milliseconds)
            self._recent.append((time.monotonic(), *times_ms))

    def snapshot(self) -> dict[str, Any]:
        """Return counts since the start, and rates over the last `WINDOW_S` seconds.

        The latter are "fps" and the medians "latency_ms" (capture to result) and "tracking_ms", all
        0 without frames, and while frames are not meant to come: in a pause and at the end of a
        file. "resident_mb" is the process's memory in MiB.
        """
        now = time.monotonic()
        since_s = max(now - WINDOW_S, self.loop.resumed_s)
        flowing = not (self.loop.paused or self.loop.finished)
        recent = [entry for entry in list(self._recent) if flowing and entry[0] >= since_s]
        span = now - recent[0][0] if recent else 0.0
        return {
            **asdict(self.loop.counts),
            "tracked": self.loop.tracked,
            "unwritten": self.loop.writer.skipped,
            "output_failures": self.loop.writer.failures,
            "objects": len(self._present),
            "present": sum(self._present.values()),
            "fps": round((len(recent) - 1) / span, 2) if len(recent) > 1 and span > 0 else 0.0,
            "latency_ms": _median([latency_ms for _, latency_ms, _ in recent]),
            "tracking_ms": _median([tracking_ms for _, _, tracking_ms in recent]),
            "resident_mb": round(resident_bytes() / 2**20, 1),
        }


def resident_bytes() -> int:
    """Return the resident set size of this process; 0 if the system does not tell.

    It does not on other systems than Linux, without /proc, or if no file descriptor is left.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 1) if values else 0.0
