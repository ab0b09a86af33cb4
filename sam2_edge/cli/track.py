"""`sam2-edge track`: track objects through a video or a folder of images."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sam2_edge.cli.options import (
    PATH,
    PromptCommand,
    TrackingOptions,
    bundle_option,
    choose_prompts,
    codec_option,
    fps_option,
    frame_range,
    overwrite_option,
    prompt_options,
    prompts_file_option,
    tracking_options,
)
from sam2_edge.cli.output import notes, progress
from sam2_edge.errors import PromptError

if TYPE_CHECKING:
    from sam2_edge.runtime.prompts import Prompt
    from sam2_edge.runtime.sinks import Sink
    from sam2_edge.runtime.sources import FrameRange, Source
    from sam2_edge.runtime.sources.prompt_file import PromptsByFrame
    from sam2_edge.runtime.tracker import VideoTracker

_EXAMPLES = """\b
Examples:
  sam2-edge track cup.mp4 --bundle nano --point 320,240 --video overlay.mp4
  sam2-edge track cup.mp4 --bundle nano --object 1 --point 40,60 --object 2 --box 10,10,90,80 \\
      --masks masks
  sam2-edge track cup.mp4 --bundle nano --point 320,240 --jsonl - | jq .iou
"""


@click.command(cls=PromptCommand, epilog=_EXAMPLES)
@click.argument("source", type=PATH)
@bundle_option
@prompt_options
@prompts_file_option
@click.option(
    "--frames",
    metavar="A:B",
    type=frame_range,
    help="Track frames A to B, excluding B; either may be omitted.",
)
@click.option("--video", type=PATH, help="Write the overlay here (.mp4).")
@codec_option
@fps_option("that of the source")
@click.option("--masks", type=PATH, help="Write indexed PNG masks here.")
@click.option("--jsonl", type=PATH, help="Write JSON lines here; - is standard output.")
@overwrite_option
@tracking_options
def track(
    source: Path,
    *,
    bundle: Path,
    prompts: Sequence[Prompt],
    prompts_file: Path | None,
    frames: FrameRange | None,
    video: Path | None,
    codec: str | None,
    fps: Fraction | None,
    masks: Path | None,
    jsonl: Path | None,
    overwrite: bool,
    tracking: TrackingOptions,
) -> None:
    """Track objects through SOURCE, a video or folder of images.

    Prompts given as options apply to the first frame.
    """
    from sam2_edge.runtime.sinks.files import check_outputs
    from sam2_edge.runtime.sinks.jsonl import JsonLines
    from sam2_edge.runtime.sinks.masks import MaskFolder
    from sam2_edge.runtime.sinks.video import OverlayVideo
    from sam2_edge.runtime.sources.prompt_file import check_mask_ids, check_prompts
    from sam2_edge.runtime.sources.video import open_source

    if not prompts and prompts_file is None:
        raise PromptError("no prompt is given; give --point, --box, --mask or --prompts")
    check_outputs([source], [video, masks, jsonl])
    opened = open_source(source, frames)
    chosen = choose_prompts(prompts_file, prompts, opened.start)
    check_prompts(chosen, opened.start, opened.limit)
    sinks: list[Sink] = []
    if video is not None:
        rate = fps or opened.fps
        sinks.append(
            OverlayVideo(video, fps=rate, codec=codec, index_first=True, overwrite=overwrite)
        )
    elif codec or fps:
        raise click.UsageError("--codec and --fps are for the overlay; give --video as well")
    if masks is not None:
        check_mask_ids(chosen)
        sinks.append(MaskFolder(masks, overwrite=overwrite))
    if jsonl is not None:
        sinks.append(JsonLines(jsonl, overwrite=overwrite))
    # Logits decide to which object of several a pixel of an indexed mask belongs.
    tracker = tracking.open_tracker(bundle, clip_frames=opened.frames, logits=masks is not None)
    _run(opened, tracker, chosen, sinks)


def _run(source: Source, tracker: VideoTracker, prompts: PromptsByFrame, sinks: list[Sink]) -> None:
    from sam2_edge.runtime.streaming.offline import track_source

    console = notes()
    present: Counter[int] = Counter()
    sizes: dict[tuple[int, int], int] = {}
    done, start_s = 0, time.perf_counter()
    # Close the generator in any case, so that an interrupt anywhere still finishes the outputs.
    with (
        progress("tracking", source.frames) as advance,
        closing(track_source(source, tracker, prompts, sinks)) as tracked,
    ):
        for _, result in tracked:
            done += 1
            sizes.setdefault(result.frame_size, result.index)
            advance(f"{done / (time.perf_counter() - start_s):.1f} frames/s")
            present.update({entry.object_id: int(entry.present) for entry in result.objects})
    rate = done / (time.perf_counter() - start_s)
    console.print(f"{done} frames, {rate:.1f} frames/s including reading, drawing and writing")
    if len(sizes) > 1:
        seen = ", ".join(
            f"{width} x {height} from frame {source.start + index}"
            for (height, width), index in sizes.items()
        )
        console.print(
            f"the size of the frames changes: {seen}; masks have the size of their own frame, the "
            "video that of the first"
        )
    for object_id, count in present.items():
        console.print(f"object {object_id}: present on {count} of {done} frames")
    if not sinks:
        console.print("nothing was written; give --video, --masks or --jsonl to keep results")
