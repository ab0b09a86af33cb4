"""Prometheus metrics of a loop."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sam2_edge.runtime.streaming.loop import LoopResult
from sam2_edge.runtime.streaming.stats import LoopStats

_BUCKETS = (0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_COUNTERS = {
    "captured": "Frames captured.",
    "dropped": "Frames dropped because the model was busy.",
    "tracked": "Frames tracked.",
    "blank": "Blank frames skipped.",
    "corrupt": "Empty frames skipped.",
    "unsupported": "Frames of a kind that cannot be tracked, such as 16-bit ones, skipped.",
    "reconnects": "Times the camera was reopened.",
    "stalls": "Times the camera delivered no frame for too long.",
    "size_changes": "Times the frame size changed.",
    "unwritten": "Results not written because outputs were too slow or had failed.",
    "output_failures": "Output failures.",
}
_GAUGES = {
    "objects": "Objects tracked.",
    "present": "Tracked objects that are visible.",
    "resident_mb": "Resident memory of the process, MiB.",
}


class LoopMetrics(Collector):
    """Metrics of one loop in a separate registry; `observe` must be called with every result."""

    def __init__(self, stats: LoopStats) -> None:
        self._stats = stats
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._stages = Histogram(
            "sam2_edge_seconds",
            "Seconds per frame: waiting before tracking, tracking, latency from capture to result.",
            ["stage"],
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def observe(self, tracked: LoopResult) -> None:
        """Record the times of one result."""
        if tracked.updated:
            return
        self._stages.labels("waiting").observe(tracked.waited_s)
        self._stages.labels("tracking").observe(tracked.result.milliseconds / 1e3)
        self._stages.labels("latency").observe(tracked.latency_s)

    def collect(self) -> Iterator[Metric]:
        """Yield the current counts."""
        figures = self._stats.snapshot()
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"sam2_edge_{name}", text, value=figures[name])
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"sam2_edge_{name}", text, value=figures[name])

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)
