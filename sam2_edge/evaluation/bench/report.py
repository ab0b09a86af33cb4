"""What a race showed, as rows of a table, JSON and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sam2_edge.bundle.contract import Graph
from sam2_edge.evaluation.bench.latency import LatencyStats
from sam2_edge.evaluation.bench.peak_memory import Peak
from sam2_edge.evaluation.bench.runner import Race
from sam2_edge.evaluation.bench.targets import POSTPROCESS, PREPROCESS, REST, WHOLE
from sam2_edge.evaluation.charts import stacked_bars

STAGES = (PREPROCESS, *(graph.value for graph in Graph), REST, POSTPROCESS, WHOLE)
"""In the order of a frame."""


@dataclass(frozen=True, slots=True)
class Extra:
    """What is known beside the times. decode: of the source, the same for all. flops: operations of
    one object's frame with a full memory, by graph. peak: operations per second of the machine.
    memory: by contender.
    """

    decode: LatencyStats
    flops: Mapping[str, int]
    peak: float | None
    memory: Mapping[str, Peak]


def stage_rows(race: Race, name: str, extra: Extra) -> list[tuple[str, ...]]:
    """Stage, median, p95, p99, GFLOP, share of the machine's peak, as text."""
    stages = race.stages(name)
    rows = [_row("decode", extra.decode)]
    for stage in STAGES:
        if stage in stages:
            flops = extra.flops.get(stage) if race.objects == 1 else None
            rows.append(_row(stage, stages[stage], flops, extra.peak))
    return rows


def as_json(races: Sequence[Race], first: str, extra: Extra) -> dict[str, Any]:
    """Everything; times in milliseconds, memory in bytes. ratio: how many times as long as `first`
    each takes.
    """
    return {
        "decode": asdict(extra.decode),
        "flops": dict(extra.flops),
        "peak_flops_per_s": extra.peak,
        "memory": {name: asdict(peak) for name, peak in extra.memory.items()},
        "races": [
            {
                "objects": race.objects,
                "contenders": {
                    name: {
                        "stages": {s: asdict(v) for s, v in race.stages(name).items()},
                        "frames_per_second": race.frames_per_second(name),
                        "ratio": asdict(race.ratio(first, name)),
                        "by_fill": race.by_fill(name),
                    }
                    for name in race.times
                },
            }
            for race in races
        ],
    }


def picture(race: Race) -> str:
    """An SVG of the stages of every contender, medians."""
    bars = {}
    for name in race.times:
        stages = {stage: spread.median for stage, spread in race.stages(name).items()}
        whole = stages.pop(WHOLE)
        bars[name] = {s: stages[s] for s in STAGES if s in stages} or {WHOLE: whole}
    title = f"Milliseconds per frame, {race.objects} object{'s' * (race.objects > 1)}"
    return stacked_bars(title, bars, unit="ms")


def _row(
    stage: str, spread: LatencyStats, flops: int | None = None, peak: float | None = None
) -> tuple[str, ...]:
    counted = share = ""
    if flops is not None:
        counted = f"{flops / 1e9:.1f}"
        if peak is not None and spread.median:
            share = f"{100 * flops / (spread.median / 1e3) / peak:.0f} %"
    times = (f"{value:.2f}" for value in (spread.median, spread.p95, spread.p99))
    return stage, *times, counted, share
