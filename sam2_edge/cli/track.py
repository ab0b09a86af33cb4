"""`sam2-edge track`: objects through a video or a folder of images."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sam2_edge.cli.options import (
    PromptCommand,
    backend_option,
    chosen_prompts,
    memory_policy_option,
    overwrite_option,
    prompt_options,
    recent_memories_option,
    threads_option,
)
from sam2_edge.runtime.backends import BackendName
from sam2_edge.runtime.memory.policies import MemoryPolicyName
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sinks.files import check_outputs
from sam2_edge.runtime.sinks.jsonl import JsonLines
from sam2_edge.runtime.sinks.masks import MaskFolder
from sam2_edge.runtime.sinks.video import OverlayVideo
from sam2_edge.runtime.sources import FrameRange, Source
from sam2_edge.runtime.sources.prompt_file import PromptsByFrame, check_mask_ids, check_prompts
from sam2_edge.runtime.sources.video import open_source
from sam2_edge.runtime.streaming.offline import track_source
from sam2_edge.runtime.tracker import VideoTracker


@click.command(cls=PromptCommand)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), required=True, help="Exported bundle.")
@prompt_options
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    help="JSON list of prompts with frame numbers, instead of the options above.",
)
@click.option(
    "--frames", metavar="A:B", help="Frames A up to but without B; either may be left out."
)
@click.option("--video", type=click.Path(path_type=Path), help="Write the overlay here (.mp4).")
@click.option("--masks", type=click.Path(path_type=Path), help="Write indexed PNG masks here.")
@click.option("--jsonl", type=click.Path(path_type=Path), help="Write JSON lines here.")
@overwrite_option
@recent_memories_option
@memory_policy_option
@backend_option
@threads_option
@click.pass_context
def track(
    ctx: click.Context,
    /,
    *,
    source: Path,
    bundle: Path,
    prompts: Path | None,
    frames: str | None,
    video: Path | None,
    masks: Path | None,
    jsonl: Path | None,
    overwrite: bool,
    recent_memories: int | None,
    memory_policy: MemoryPolicyName,
    backend: BackendName,
    threads: int | None,
    **_: object,
) -> None:
    """Track objects through SOURCE, a video file or a folder of images.

    Prompts given as options are for the first frame. Several objects: --object 1 --point 40,60
    --object 2 --box 10,10,90,80.
    """
    check_outputs(source, [video, masks, jsonl])
    opened = open_source(source, frame_range(frames))
    script = chosen_prompts(ctx, prompts, opened.start)
    check_prompts(script, opened.start, opened.frames)
    if masks is not None:
        check_mask_ids(script)
    tracker = VideoTracker(
        bundle,
        backend=backend,
        threads=threads,
        recent_memories=recent_memories,
        memory_policy=memory_policy,
        clip_frames=opened.frames,
    )
    sinks: list[Sink] = []
    if video is not None:
        sinks.append(OverlayVideo(video, fps=opened.fps, overwrite=overwrite))
    if masks is not None:
        sinks.append(MaskFolder(masks, overwrite=overwrite))
    if jsonl is not None:
        sinks.append(JsonLines(jsonl, overwrite=overwrite))
    _run(opened, tracker, script, sinks)


def frame_range(text: str | None) -> FrameRange:
    """The range that "A:B" means; raises click.BadParameter for anything else."""
    if text is None:
        return FrameRange()
    first, colon, last = text.partition(":")
    try:
        chosen = FrameRange(int(first or 0), int(last) if last else None)
    except ValueError:
        chosen = FrameRange(-1)
    if not colon or chosen.start < 0 or (chosen.stop is not None and chosen.stop <= chosen.start):
        raise click.BadParameter(
            f"{text!r} is not A:B with 0 <= A < B, such as 0:100", param_hint="--frames"
        )
    return chosen


def _run(source: Source, tracker: VideoTracker, script: PromptsByFrame, sinks: list[Sink]) -> None:
    console = Console(stderr=True)
    columns = (
        TextColumn("tracking"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    seen: dict[int, int] = {}
    done, start = 0, time.perf_counter()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=source.frames, rate="")
        # Closed here whatever happens, so that an interrupt anywhere still finishes the outputs.
        with closing(track_source(source, tracker, script, sinks)) as results:
            for _, result in results:
                done += 1
                rate = done / (time.perf_counter() - start)
                progress.update(task, completed=done, rate=f"{rate:.2f} frames/s")
                for entry in result.objects:
                    seen[entry.object_id] = seen.get(entry.object_id, 0) + int(entry.present)
    rate = done / (time.perf_counter() - start)
    console.print(f"{done} frames, {rate:.1f} frames/s with reading, drawing and writing")
    for object_id, count in seen.items():
        console.print(f"object {object_id}: present on {count} of {done} frames")
    if not sinks:
        console.print("nothing was written; give --video, --masks or --jsonl to keep results")
