"""`sam2-edge batch`: track objects through many videos."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sam2_edge.batch import OUTPUTS, OutputKind
from sam2_edge.batch.cluster import Cluster
from sam2_edge.cli.options import TrackingOptions, bundle_option, tracking_options
from sam2_edge.cli.output import notes, progress
from sam2_edge.cli.ray_options import RayOptions, ray_options
from sam2_edge.errors import Sam2EdgeError

if TYPE_CHECKING:
    from sam2_edge.batch.processes import Processes
    from sam2_edge.batch.results import VideoRecord
    from sam2_edge.batch.tasks import VideoTask
    from sam2_edge.batch.tracking import TrackVideos

    Engine = Cluster[VideoTask, VideoRecord] | Processes[VideoTask, VideoRecord]
    Records = dict[str, VideoRecord | None]

MEMORY_SHARE = 0.8
"""Share of the available memory that workers may fill."""


_EXAMPLES = """\b
Examples:
  sam2-edge batch clips --bundle nano --output results --write masks --write jsonl
  sam2-edge batch list.jsonl --bundle nano --output s3://bucket/results --write coco --ray auto
"""


@click.command(epilog=_EXAMPLES)
@click.argument("inputs", nargs=-1, required=True)
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
@ray_options
@tracking_options
def batch(
    inputs: Sequence[str],
    *,
    bundle: Path,
    output: str,
    kinds: tuple[OutputKind, ...],
    retry_failed: bool,
    workers: int | None,
    ray: RayOptions,
    tracking: TrackingOptions,
) -> None:
    """Track objects through many videos, in parallel.

    INPUTS are videos, folders of images, folders of these, or lists (.jsonl or .csv). Each video
    has its prompts beside it: clip.json, a prompts file, or clip.png, a mask of its first frame.
    Rerun the same command to resume. The exit code is 1 if a video failed.
    """
    from sam2_edge.batch.results import BatchOutput, BatchSettings
    from sam2_edge.batch.tasks import find_tasks
    from sam2_edge.batch.tracking import TrackVideos
    from sam2_edge.bundle import load_bundle
    from sam2_edge.bundle.manifest import MANIFEST_FILE
    from sam2_edge.bundle.storage import sha256_of

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
    records: Records = {task.name: place.record(task.name) for task in tasks}
    missing = [task for task in tasks if _is_open(records[task.name], retry_failed=retry_failed)]
    work = TrackVideos(loaded, settings, place)
    cluster = ray.cluster(workers)
    if cluster is not None:
        engine: Engine = Cluster(work, cluster)
    else:
        engine = _local(work, missing, workers, tracking)
    try:
        _run(engine, missing, records)
    finally:
        place.write_results(record for record in records.values() if record is not None)
    _summarize(place.path, records)


def _is_open(record: VideoRecord | None, *, retry_failed: bool) -> bool:
    return record is None or (retry_failed and record.status == "failed")


def _local(
    work: TrackVideos, missing: Sequence[VideoTask], workers: int | None, tracking: TrackingOptions
) -> Engine:
    """Processes of this machine: as many as asked for, or as cores and memory allow."""
    from sam2_edge.batch.processes import Processes, free_memory, usable_cores

    count = workers or min(len(missing), usable_cores() // (tracking.threads or 1)) or 1
    if workers is None and count > 1:
        notes().print("measuring the memory of a worker; --workers skips this")
        peak = _peak_bytes(work, tracking, usable_cores() // count)
        count = max(1, min(count, int(MEMORY_SHARE * free_memory() / peak)))
    return Processes(work, count, tracking.threads)


def _peak_bytes(work: TrackVideos, tracking: TrackingOptions, threads: int) -> int:
    """Peak memory of a process that tracks one object until its memory is full."""
    from sam2_edge.evaluation.bench.limits import UNCOUNTED_FRAMES
    from sam2_edge.evaluation.bench.peak_memory import measure_peak
    from sam2_edge.evaluation.clips import bench_clip

    folder, size = work.bundle.path, work.bundle.manifest.image_size
    with ExitStack() as stack:
        clip = bench_clip(None, size, UNCOUNTED_FRAMES, 1, stack)
        return measure_peak(str(folder), folder, clip.path, tracking.backend, threads).host


def _run(engine: Engine, missing: Sequence[VideoTask], records: Records) -> None:
    """Track videos, and keep their records."""
    done, started = len(records) - len(missing), time.monotonic()
    if done:
        notes().print(f"{done} of {len(records)} videos are already finished")
    with progress("tracking", len(records), "videos", done=done) as advance:

        def show(frames: int, steps: int = 0) -> None:
            advance(f"{frames} frames, {frames / (time.monotonic() - started):.1f} frames/s", steps)

        frames = 0
        with closing(engine.run(missing, show)) as results:
            for record in results:
                records[record.name] = record
                frames += record.frames
                if record.error is not None:
                    notes().print(f"{record.name}: {record.error}", markup=False)
                show(frames, steps=1)


def _summarize(output: str, records: Records) -> None:
    from sam2_edge.batch.results import RESULTS

    finished = [record for record in records.values() if record is not None]
    failed = [record for record in finished if record.status == "failed"]
    notes().print(
        f"{len(finished) - len(failed)} videos done, {len(failed)} failed: {output}/{RESULTS}",
        markup=False,
    )
    if failed:
        raise Sam2EdgeError(
            f"{len(failed)} of {len(records)} videos failed, the first is {failed[0].name}: "
            f"{failed[0].error}; rerun with --retry-failed once that is mended"
        )
