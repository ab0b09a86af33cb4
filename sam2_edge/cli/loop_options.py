"""What `run` and `serve` share: where frames come from, where results go, and how it ends."""

from __future__ import annotations

import json
import logging
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from sam2_edge.cli.options import (
    PATH,
    TrackingOptions,
    bundle_option,
    grouped,
    prompt_options,
    tracking_options,
)
from sam2_edge.errors import SinkError
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sinks.jsonl import JsonLines
from sam2_edge.runtime.sinks.masks import MaskFolder
from sam2_edge.runtime.sinks.rotation import RotatingSink, RotationPolicy, SizedSink
from sam2_edge.runtime.sinks.udp import UdpJson
from sam2_edge.runtime.sinks.video import OverlayVideo, RealTimeVideo
from sam2_edge.runtime.sources.camera import Camera, is_live
from sam2_edge.runtime.sources.video import open_source
from sam2_edge.runtime.streaming.loop import CameraLoop, LoopResult
from sam2_edge.runtime.streaming.stats import Meter
from sam2_edge.runtime.streaming.systemd import Watchdog, notify
from sam2_edge.synthetic.camera import SyntheticCamera

_log = logging.getLogger("sam2_edge.loop")


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """Values of `loop_options`."""

    bundle: Path
    every_frame: bool | None
    unpaced: bool
    video: Path | None
    video_fps: int
    masks: Path | None
    jsonl: Path | None
    udp: str | None
    rotate_mb: float
    rotate_minutes: float
    keep_gb: float
    report_s: float
    log_json: bool
    tracking: TrackingOptions


loop_options = grouped(
    "options",
    LoopOptions,
    bundle_option,
    prompt_options,
    click.option(
        "--every-frame/--latest-frame",
        default=None,
        help="Drop no frame, or those that come while the model works. [latest but for files]",
    ),
    click.option("--unpaced", is_flag=True, help="Read files and synth as fast as possible."),
    click.option("--video", type=PATH, help="Folder for overlay videos (.mkv)."),
    click.option(
        "--video-fps",
        type=click.IntRange(1, 120),
        default=15,
        show_default=True,
        help="Frames per second of overlays of a camera; those of a file have its own.",
    ),
    click.option("--masks", type=PATH, help="Folder for folders of PNG masks."),
    click.option("--jsonl", type=PATH, help="Folder for JSON lines."),
    click.option("--udp", metavar="HOST:PORT", help="Send every JSON line as a datagram."),
    click.option(
        "--rotate-mb",
        type=float,
        default=512,
        show_default=True,
        help="Begin a new file at this size.",
    ),
    click.option(
        "--rotate-minutes",
        type=float,
        default=60,
        show_default=True,
        help="Begin one at this age.",
    ),
    click.option(
        "--keep-gb",
        type=float,
        default=8,
        show_default=True,
        help="Delete the oldest files of a kind beyond this.",
    ),
    click.option(
        "--report-s", type=float, default=10, show_default=True, help="Seconds between logs."
    ),
    click.option("--log-json", is_flag=True, help="Log as JSON lines."),
    tracking_options,
)


def make_loop(source: str, options: LoopOptions, watchdog: Watchdog) -> CameraLoop:
    """The loop that the options describe; the watchdog is told that it is alive."""
    _set_up_logging(as_json=options.log_json)
    opener = _opener(source, paced=not options.unpaced)
    sinks = _sinks(opener, options)
    tracker = options.tracking.open_tracker(options.bundle, remember_absent=False)
    return CameraLoop(
        opener,
        tracker,
        every_frame=options.every_frame,
        paced=not options.unpaced,
        sinks=sinks,
        tick=watchdog.alive,
    )


def _opener(source: str, *, paced: bool) -> str | Callable[[], Camera]:
    """A function that opens the synthetic camera for "synth" or "synth:SEED", else the source."""
    if match := re.fullmatch(r"synth(?::(\d+))?", source):
        return partial(SyntheticCamera, int(match[1] or 0), paced=paced)
    return source


def run_loop(
    meter: Meter,
    prompts: Sequence[Prompt],
    report_s: float,
    see: Callable[[LoopResult], None] = lambda _: None,
) -> None:
    """Iterate a loop to the end, with a line in the log now and then.

    see: called with every result, in this thread.

    Raises PromptError for a prompt that cannot be used on the first frame, and at the end
    SinkError if results are not complete.
    """
    loop, last = meter.loop, time.monotonic()
    added = [
        loop.prompt(p.object_id, points=p.points, labels=p.labels, box=p.box, mask=p.mask)
        for p in prompts
    ]
    for tracked in loop:
        if loop.tracked == 1:
            for future in added:
                future.result()
            notify("READY=1")
        meter.see(tracked)
        see(tracked)
        if time.monotonic() - last >= report_s:
            last = time.monotonic()
            _report("running", meter)
    _report("ended", meter)
    if loop.output.first_failure:
        raise SinkError(f"results are incomplete: {loop.output.first_failure}")


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM calls `stop`, a second one interrupts at once."""

    def handle(number: int, frame: Any) -> None:
        if asked:
            signal.default_int_handler(number, frame)
        asked.append(number)
        notify("STOPPING=1")
        stop()

    asked: list[int] = []
    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _sinks(source: str | Callable[[], Camera], options: LoopOptions) -> list[Sink]:
    rule = RotationPolicy(
        int(options.rotate_mb * 2**20), 60 * options.rotate_minutes, int(options.keep_gb * 2**30)
    )
    sinks: list[Sink] = []
    if options.video is not None:
        make: Callable[[Path], SizedSink] = partial(RealTimeVideo, fps=options.video_fps)
        if isinstance(source, str) and not is_live(source):
            make = partial(OverlayVideo, fps=open_source(source).fps)
        sinks.append(RotatingSink(options.video, "overlay", ".mkv", make, rule))
    if options.masks is not None:
        sinks.append(RotatingSink(options.masks, "masks", "", MaskFolder, rule))
    if options.jsonl is not None:
        sinks.append(RotatingSink(options.jsonl, "results", ".jsonl", JsonLines, rule))
    if options.udp is not None:
        sinks.append(UdpJson(*_address(options.udp)))
    return sinks


def _report(what: str, meter: Meter) -> None:
    figures = meter.snapshot()
    text = "  ".join(f"{name} {value}" for name, value in figures.items() if value)
    _log.info("%s: %s", what, text, extra={"figures": figures})


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise click.BadParameter(f"{text!r} is not HOST:PORT", param_hint="--udp")
    return host.strip("[]"), int(port)


class _JsonFormatter(logging.Formatter):
    """A JSON object per line; numbers of a report as fields of their own."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "figures", {}),
        }
        return json.dumps(entry)


def _set_up_logging(*, as_json: bool) -> None:
    package = logging.getLogger("sam2_edge")
    package.setLevel(logging.INFO)
    if as_json:
        handler = logging.StreamHandler()
        handler.setFormatter(_JsonFormatter())
        package.handlers, package.propagate = [handler], False
    else:
        Console(stderr=True).print("Ctrl-C ends it; what is written is kept")
