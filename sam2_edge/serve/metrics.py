"""Prometheus metrics of one loop, or of several with the label `stream`."""

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
}


class LoopMetrics(Collector):
    """Metrics of loops in a separate registry; `observe` must be called with every result.

    Args:
        stats: Statistics of one loop without a name, or of loops that all have one.
    """

    def __init__(self, *stats: LoopStats) -> None:
        self._stats = stats
        self._labels = [] if stats[0].loop.name is None else ["stream"]
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._stages = Histogram(
            "sam2_edge_seconds",
            "Seconds per frame: waiting before tracking, tracking, latency from capture to result.",
            [*self._labels, "stage"],
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def observe(self, tracked: LoopResult) -> None:
        """Record the times of one result."""
        if tracked.updated:
            return
        stream = _values(tracked.frame.stream)
        self._stages.labels(*stream, "waiting").observe(tracked.waited_s)
        self._stages.labels(*stream, "tracking").observe(tracked.result.milliseconds / 1e3)
        self._stages.labels(*stream, "latency").observe(tracked.latency_s)

    def collect(self) -> Iterator[Metric]:
        """Yield the current counts."""
        figures = [(_values(stats.loop.name), stats.snapshot()) for stats in self._stats]
        kinds = ((CounterMetricFamily, _COUNTERS), (GaugeMetricFamily, _GAUGES))
        for family, metrics in kinds:
            for name, text in metrics.items():
                metric = family(f"sam2_edge_{name}", text, labels=self._labels)
                for stream, values in figures:
                    metric.add_metric(stream, values[name])
                yield metric
        resident_mb = figures[0][1]["resident_mb"]
        text = "Resident memory of the process, MiB."
        yield GaugeMetricFamily("sam2_edge_resident_mb", text, value=resident_mb)

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)


def _values(stream: str | None) -> list[str]:
    """The values of the label `stream`: none if there is one loop without a name."""
    return [] if stream is None else [stream]
