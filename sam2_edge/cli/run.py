"""`sam2-edge run`: the camera loop without a web page."""

from __future__ import annotations

from collections.abc import Sequence

import click

from sam2_edge.cli.loop_options import (
    LoopOptions,
    loop_options,
    make_loop,
    run_loop,
    stopped_by_signals,
)
from sam2_edge.cli.options import PromptCommand
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.sinks.files import STANDARD_OUTPUT
from sam2_edge.runtime.streaming.loop import LoopResult
from sam2_edge.runtime.streaming.stats import LoopStats
from sam2_edge.runtime.streaming.systemd import Watchdog

_EXAMPLE = """\b
Example:
  sam2-edge run 0 --bundle nano --point 320,240 --jsonl results
"""


@click.command(cls=PromptCommand, epilog=_EXAMPLE)
@click.argument("source")
@loop_options
def run(source: str, *, options: LoopOptions, prompts: Sequence[Prompt]) -> None:
    """Track objects on a camera until interrupted.

    SOURCE is a camera's number or device, csi (on a Jetson), a URL such as rtsp://..., a GStreamer
    pipeline, a video file, a folder of images, or synth for the synthetic camera. Prompts apply to
    the first frame. A camera that fails is reopened, and its objects are kept.

    Outputs are files, or folders for series of files, of which the oldest are deleted.
    """
    outputs = (options.video, options.masks, options.jsonl, options.udp)
    if not prompts and options.prompts_file is None and not any(outputs):
        raise click.UsageError(
            "without a prompt and without an output this would do nothing; give --point, --box, "
            "--mask or --prompts, and --video, --masks, --jsonl or --udp"
        )
    loop = make_loop(source, options, prompts, Watchdog())

    def stop_without_reader(_: LoopResult) -> None:
        if options.jsonl == STANDARD_OUTPUT and loop.writer.first_failure:
            loop.close()

    with stopped_by_signals(loop.close):
        run_loop(LoopStats(loop), options.report_s, on_result=stop_without_reader)
