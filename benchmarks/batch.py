"""Videos per hour of a batch in processes and on a Ray cluster of this machine.

    python benchmarks/batch.py --videos 8 --frames 100

Each engine tracks the same synthetic clips with the bundled nano, one thread per worker, and writes
masks; engines take turns. The start of workers is not counted: time runs from the moment at which
every worker has finished a video.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from sam2_edge.batch.cluster import LOCAL, Cluster, ClusterOptions
from sam2_edge.batch.processes import Processes
from sam2_edge.batch.results import BatchOutput, BatchSettings
from sam2_edge.batch.tasks import VideoTask, find_tasks
from sam2_edge.batch.tracking import TrackVideos
from sam2_edge.bundle import load_bundle
from sam2_edge.synthetic import clip
from sam2_edge.synthetic.dataset import FRAMES, PROMPTS, write_dataset

BASELINE = "1 process"


def _engines(work: TrackVideos) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Number of workers and engine, by name."""

    def ray(workers: int) -> Any:
        return Cluster(work, ClusterOptions(LOCAL, workers=workers))

    return {
        BASELINE: (1, lambda: Processes(work, 1, threads=1)),
        "2 processes": (2, lambda: Processes(work, 2, threads=1)),
        "Ray, 1 worker": (1, lambda: ray(1)),
        "Ray, 2 workers": (2, lambda: ray(2)),
    }


def _seconds_per_video(results: Iterator[Any], workers: int) -> float:
    ends = [time.perf_counter() for record in results if record.status == "done"]
    return (ends[-1] - ends[workers - 1]) / (len(ends) - workers)


@click.command()
@click.option("--videos", default=8, show_default=True, type=click.IntRange(min=4))
@click.option("--frames", default=100, show_default=True, type=click.IntRange(min=2))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
def main(videos: int, frames: int, rounds: int) -> None:
    """Measure every engine in turn."""
    bundle = load_bundle("nano")
    settings = BatchSettings(
        sam2_edge_version=version("sam2_edge"),
        bundle="nano",
        bundle_sha256="",
        outputs=("masks",),
        backend="cpu",
    )
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_dataset(data, (clip(s, frames=frames, split="heldout") for s in range(videos)))
        tasks = [
            VideoTask(t.name, t.source, prompts=str(data / PROMPTS / f"{t.name}.json"))
            for t in find_tasks([data / FRAMES])
        ]
        for number in range(rounds):
            work = TrackVideos(bundle, settings, BatchOutput(f"{folder}/{number}"))
            for name, (workers, open_engine) in _engines(work).items():
                taken = _seconds_per_video(open_engine().run(tasks), workers)
                times.setdefault(name, []).append(taken)
    _show(times)


def _show(times: dict[str, list[float]]) -> None:
    table = Table("engine", "videos per hour", f"as a multiple of {BASELINE}")
    base = statistics.median(times[BASELINE])
    for name, taken in times.items():
        median = statistics.median(taken)
        table.add_row(name, f"{3600 / median:.0f}", f"{base / median:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
