"""The loop's numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sam2_edge.runtime.streaming.loop import LoopResult
from sam2_edge.runtime.streaming.stats import Meter

_BUCKETS = (0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_COUNTERS = {
    "captured": "Frames that the camera gave.",
    "dropped": "Frames that came while the model worked.",
    "tracked": "Frames that were tracked.",
    "blank": "Frames of one color, left out.",
    "corrupt": "Frames that were no pictures, left out.",
    "reconnects": "Times that the camera was opened again.",
    "stalls": "Times that the camera gave no frame for too long.",
    "size_changes": "Times that frames changed their size.",
    "unwritten": "Results that were not written: outputs were too slow, or have failed.",
    "output_failures": "Times that an output failed.",
}
_GAUGES = {
    "objects": "Objects that are tracked.",
    "present": "Objects that are seen.",
    "resident_mb": "Resident memory of the process, MiB.",
}


class LoopMetrics(Collector):
    """Metrics of one loop in a registry of their own; call `see` with every result."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._stages = Histogram(
            "sam2_edge_seconds",
            "Seconds per frame: waiting to be tracked, tracking, and age from capture to result.",
            ["stage"],
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def see(self, tracked: LoopResult) -> None:
        """Take one result into account."""
        if tracked.again:
            return
        self._stages.labels("waiting").observe(tracked.waited_s)
        self._stages.labels("tracking").observe(tracked.result.milliseconds / 1e3)
        self._stages.labels("age").observe(tracked.latency_s)

    def collect(self) -> Iterator[Metric]:
        """The counts as they are now."""
        figures = self._meter.snapshot()
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"sam2_edge_{name}", text, value=figures[name])
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"sam2_edge_{name}", text, value=figures[name])

    def text(self) -> bytes:
        """What Prometheus reads."""
        return generate_latest(self._registry)
