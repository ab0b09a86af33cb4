"""`sam2-edge batch`: track objects through many videos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, closing
from importlib.metadata import version
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from sam2_edge.batch.cluster import Cluster, ClusterOptions
from sam2_edge.batch.processes import Processes, usable_cores
from sam2_edge.batch.results import OUTPUTS, RESULTS, BatchOutput, BatchSettings, VideoRecord
from sam2_edge.batch.tasks import VideoTask, find_tasks
from sam2_edge.batch.tracking import TrackVideos
from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.manifest import MANIFEST_FILE
from sam2_edge.bundle.storage import sha256_of
from sam2_edge.cli.options import PATH, TrackingOptions, bundle_option, tracking_options
from sam2_edge.errors import Sam2EdgeError
from sam2_edge.evaluation.bench.peak_memory import measure_peak
from sam2_edge.evaluation.bench.runner import UNCOUNTED_FRAMES
from sam2_edge.evaluation.clips import bench_clip

MEMORY_SHARE = 0.8
"""Share of the available memory that workers may fill."""


@click.command(
    epilog="Example: sam2-edge batch clips/ --bundle nano --output results/ --write masks"
)
@click.argument("inputs", nargs=-1, required=True, type=PATH)
@bundle_option
@click.option(
    "--output", required=True, help="Folder or URL for the results; resumed if it exists."
)
@click.option(
    "--write",
    "kinds",
    type=click.Choice(OUTPUTS),
    multiple=True,
    required=True,
    help="What to write for each video: indexed PNG masks, JSON lines, one COCO file, or an "
    "overlay video. Repeatable.",
)
@click.option("--retry-failed", is_flag=True, help="Also track videos that failed before.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    show_default="as many as cores and memory allow",
    help="Videos tracked in parallel.",
)
@click.option(
    "--ray",
    "address",
    metavar="ADDRESS",
    help="Run on a Ray cluster: its address, auto, or local to start one here.",
)
@click.option(
    "--cpus-per-worker",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Cores of each worker on a Ray cluster.",
)
@click.option(
    "--gpus-per-worker",
    type=click.FloatRange(min=0),
    default=0,
    show_default=True,
    help="GPUs of each worker on a Ray cluster; 0.5 puts two workers on a GPU.",
)
@tracking_options
def batch(
    inputs: Sequence[Path],
    *,
    bundle: Path,
    output: str,
    kinds: tuple[str, ...],
    retry_failed: bool,
    workers: int | None,
    address: str | None,
    cpus_per_worker: int,
    gpus_per_worker: float,
    tracking: TrackingOptions,
) -> None:
    """Track objects through many videos, in parallel.

    INPUTS are videos, folders of images, folders of these, or lists (.jsonl or .csv). Each video
    has its prompts beside it: clip.json, a prompts file, or clip.png, a mask of its first frame.
    Rerun the same command to resume. The exit code is 1 if a video failed.
    """
    tasks = find_tasks(inputs)
    loaded = load_bundle(bundle)
    place = BatchOutput(output)
    settings = BatchSettings(
        sam2_edge_version=version("sam2_edge"),
        bundle=loaded.manifest.model.name,
        bundle_sha256=sha256_of(loaded.path / MANIFEST_FILE),
        outputs=tuple(kind for kind in OUTPUTS if kind in kinds),
        backend=tracking.backend,
        memory_policy=tracking.memory_policy,
        recent_memories=tracking.recent_memories,
    )
    place.prepare(settings)
    records = {task.name: place.record(task.name) for task in tasks}
    missing = [task for task in tasks if _is_open(records[task.name], retry_failed=retry_failed)]
    work = TrackVideos(loaded, settings, place)
    engine: Cluster[VideoTask, VideoRecord] | Processes[VideoTask, VideoRecord]
    if address is not None:
        options = ClusterOptions(address, cpus_per_worker, gpus_per_worker, workers)
        engine = Cluster(work, options)
    else:
        count = workers or _workers(loaded, len(missing), tracking)
        engine = Processes(work, count, tracking.threads)
    try:
        _run(engine, missing, records)
    finally:
        place.write_results(record for record in records.values() if record is not None)
    _summarize(output, records)


def _is_open(record: VideoRecord | None, *, retry_failed: bool) -> bool:
    return record is None or (retry_failed and record.status == "failed")


def _workers(bundle: Bundle, videos: int, tracking: TrackingOptions) -> int:
    """Number of processes for which cores and memory suffice."""
    count = min(videos, usable_cores() // (tracking.threads or 1))
    if count < 2:
        return 1
    with ExitStack() as stack:
        clip = bench_clip(None, bundle.manifest.image_size, UNCOUNTED_FRAMES, 1, stack)
        peak = measure_peak(
            str(bundle.path), bundle.path, clip.path, tracking.backend, usable_cores() // count
        )
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(count, int(MEMORY_SHARE * free / peak.host)))


def _run(
    engine: Cluster[VideoTask, VideoRecord] | Processes[VideoTask, VideoRecord],
    missing: Sequence[VideoTask],
    records: dict[str, VideoRecord | None],
) -> None:
    """Track videos, and keep their records."""
    console = Console(stderr=True)
    done = len(records) - len(missing)
    if done:
        console.print(f"{done} of {len(records)} videos are already finished")
    frames = 0
    columns = (
        *(TextColumn("videos"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
        TextColumn("{task.fields[frames]} frames, {task.fields[rate]:.1f}/s"),
    )
    with Progress(*columns, console=console) as progress:
        shown = progress.add_task("", total=len(records), completed=done, frames=0, rate=0.0)
        with closing(engine.run(missing)) as results:
            for record in results:
                records[record.name] = record
                frames += record.frames
                if record.error is not None:
                    console.print(f"{escape(record.name)}: {escape(record.error)}", soft_wrap=True)
                elapsed = progress.tasks[shown].elapsed or 1.0
                progress.update(shown, advance=1, frames=frames, rate=frames / elapsed)


def _summarize(output: str, records: dict[str, VideoRecord | None]) -> None:
    finished = [record for record in records.values() if record is not None]
    failed = [record for record in finished if record.status == "failed"]
    Console(stderr=True, soft_wrap=True).print(
        f"{len(finished) - len(failed)} videos done, {len(failed)} failed: "
        f"{escape(output)}/{RESULTS}",
        highlight=False,
    )
    if failed:
        raise Sam2EdgeError(
            f"{len(failed)} of {len(records)} videos failed, the first is {failed[0].name}: "
            f"{failed[0].error}; rerun with --retry-failed once that is mended"
        )
