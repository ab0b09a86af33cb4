"""The results of a benchmark as table rows, JSON and a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sam2_edge.bundle.contract import Graph
from sam2_edge.evaluation.bench.peak_memory import Peak
from sam2_edge.evaluation.bench.runner import InterleavedRun, LatencyStats
from sam2_edge.evaluation.bench.targets import POSTPROCESS, PREPROCESS, REST, WHOLE
from sam2_edge.evaluation.charts import stacked_bars

STAGE_COLUMNS = ("stage", "median ms", "p95", "p99", "GFLOP", "of peak")

STAGES = (PREPROCESS, *(graph.value for graph in Graph), REST, POSTPROCESS, WHOLE)
"""All stages in order of execution."""


@dataclass(frozen=True, slots=True)
class Extra:
    """Measurements other than the times of the targets.

    Attributes:
        decode: Milliseconds to decode a frame of the source.
        flops: Operations per frame by target and graph, for one object with full memory.
        peak: Operations per second of the machine, see `highest_rate`; None if unknown.
        memory: Peak memory by target.
    """

    decode: LatencyStats
    flops: Mapping[str, Mapping[str, int]]
    peak: float | None
    memory: Mapping[str, Peak]


def highest_rate(
    runs: Sequence[InterleavedRun], flops: Mapping[str, Mapping[str, int]], product: float
) -> float:
    """Return the most operations per second that any graph, or a matrix product, reached.

    Convolutions by faster algorithms, and clocks that rise during the run, make graphs exceed the
    rate of a matrix product.

    Args:
        runs: Those with one object count, as `flops` does.
        flops: Operations per frame by target and graph.
        product: The rate of a matrix product.
    """
    rates = [product]
    for run in runs:
        for name, graphs in flops.items() if run.objects == 1 else ():
            for graph, count in graphs.items():
                fastest = run.fastest(name, graph)
                if fastest is not None:
                    rates.append(count / fastest * 1e3)
    return max(rates)


def stage_rows(run: InterleavedRun, name: str, extra: Extra) -> list[tuple[str, ...]]:
    """Format a target's stages as rows of `STAGE_COLUMNS`."""
    stages = run.stages(name)
    counted = extra.flops.get(name, {}) if run.objects == 1 else {}
    timed = [stage for stage in STAGES if stage in stages]
    rows = [_row(stage, stages[stage], counted.get(stage), extra.peak) for stage in timed]
    return [_row("decode", extra.decode), *rows]


def as_json(runs: Sequence[InterleavedRun], first: str, extra: Extra) -> dict[str, Any]:
    """Return all results: times in milliseconds, memory in bytes, ratios to the time of `first`."""
    return {
        "decode": asdict(extra.decode),
        "flops": {name: dict(counted) for name, counted in extra.flops.items()},
        "peak_flops_per_s": extra.peak,
        "memory": {name: asdict(peak) for name, peak in extra.memory.items()},
        "runs": [
            {
                "objects": run.objects,
                "targets": {
                    name: {
                        "stages": {s: asdict(v) for s, v in run.stages(name).items()},
                        "frames_per_second": run.frames_per_second(name),
                        "ratio": asdict(run.ratio(first, name)),
                        "by_fill": run.by_fill(name),
                    }
                    for name in run.times
                },
            }
            for run in runs
        ],
    }


def picture(run: InterleavedRun) -> str:
    """Draw the median stages of every target as an SVG."""
    bars = {}
    for name in run.times:
        stages = {stage: stats.median for stage, stats in run.stages(name).items()}
        whole = stages.pop(WHOLE)
        bars[name] = {s: stages[s] for s in STAGES if s in stages} or {WHOLE: whole}
    title = f"Milliseconds per frame, {run.objects} object{'s' * (run.objects > 1)}"
    return stacked_bars(title, bars, unit="ms")


def _row(
    stage: str, stats: LatencyStats, flops: int | None = None, peak: float | None = None
) -> tuple[str, ...]:
    counted = share = ""
    if flops is not None:
        counted = f"{flops / 1e9:.1f}"
        if peak is not None and stats.median:
            share = f"{100 * flops / (stats.median / 1e3) / peak:.0f} %"
    times = (f"{value:.2f}" for value in (stats.median, stats.p95, stats.p99))
    return stage, *times, counted, share
