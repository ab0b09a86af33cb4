"""`sam2-edge run`: camera loops without a web page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from sam2_edge.cli.loop_options import (
    LoopOptions,
    loop_options,
    make_loop,
    run_loop,
    stopped_by_signals,
)
from sam2_edge.cli.options import PromptCommand
from sam2_edge.cli.stream_names import stream_names
from sam2_edge.cli.streams import make_hub, run_hub
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.sinks.files import STANDARD_OUTPUT
from sam2_edge.runtime.streaming.loop import LoopResult
from sam2_edge.runtime.streaming.stats import LoopStats
from sam2_edge.runtime.streaming.systemd import Watchdog

_EXAMPLE = """\b
Example:
  sam2-edge run 0 --bundle nano --point 320,240 --jsonl results
  sam2-edge run door=0 yard=rtsp://10.0.0.5/stream --bundle nano --prompts prompts.json
"""


@click.command(cls=PromptCommand, epilog=_EXAMPLE)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@loop_options
def run(sources: tuple[str, ...], *, options: LoopOptions, prompts: Sequence[Prompt]) -> None:
    """Track objects on cameras until interrupted.

    SOURCE is a camera's number or device, csi (on a Jetson), a URL such as rtsp://..., a GStreamer
    pipeline, a video file, a folder of images, or synth for the synthetic camera. Prompts apply to
    the first frame. A camera that fails is reopened, and its objects are kept.

    Outputs are files, or folders for series of files, of which the oldest are deleted.

    Several sources share one model. Each has a name, NAME=SOURCE or one made from the source,
    under which its outputs are; its prompts are in a file.
    """
    outputs = (options.video, options.masks, options.jsonl, options.udp)
    if not prompts and options.prompts_file is None and not any(outputs):
        raise click.UsageError(
            "without a prompt and without an output this would do nothing; give --point, --box, "
            "--mask or --prompts, and --video, --masks, --jsonl or --udp"
        )
    named = stream_names(sources)
    if named is not None:
        _run_streams(named, options, prompts)
        return
    loop = make_loop(sources[0], options, prompts, Watchdog())

    def stop_without_reader(_: LoopResult) -> None:
        if options.jsonl == STANDARD_OUTPUT and loop.writer.lost_reader:
            loop.close()

    with stopped_by_signals(loop.close):
        run_loop(LoopStats(loop), options.report_s, on_result=stop_without_reader)


def _run_streams(
    sources: Mapping[str, str], options: LoopOptions, prompts: Sequence[Prompt]
) -> None:
    hub = make_hub(sources, options, prompts)
    stats = {name: LoopStats(hub[name]) for name in hub.names}

    def stop_without_reader(tracked: LoopResult) -> None:
        writer = hub[tracked.frame.stream or ""].writer
        if options.jsonl == STANDARD_OUTPUT and writer.lost_reader:
            hub.close()

    with stopped_by_signals(hub.close):
        run_hub(hub, stats, options.report_s, stop_without_reader)
