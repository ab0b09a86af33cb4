"""The camera loop of `run` and `serve`: options, outputs, logging and signals."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import click

from sam2_edge.bundle import load_bundle
from sam2_edge.cli.loop_outputs import check_rotation, jsonl_sink, mask_sink, video_sink
from sam2_edge.cli.loop_source import LoopSource, find_source
from sam2_edge.cli.options import (
    PATH,
    Decorator,
    TrackingOptions,
    bundle_option,
    choose_prompts,
    codec_option,
    fps_option,
    grouped,
    overwrite_option,
    prompt_options,
    prompts_file_option,
    tracking_options,
)
from sam2_edge.cli.output import log_handler, notes
from sam2_edge.cli.signals import SIGNALS, Repeats
from sam2_edge.errors import PromptError, SinkError
from sam2_edge.runtime.prompts import Prompt, prompts_by_object
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sinks.rotation import RotationPolicy, SizedSink
from sam2_edge.runtime.sinks.udp import UdpJson, parse_address
from sam2_edge.runtime.sinks.video import OverlayVideo, RealTimeVideo
from sam2_edge.runtime.sources.prompt_file import PromptsByFrame, check_mask_ids
from sam2_edge.runtime.streaming.guarded import Guarded
from sam2_edge.runtime.streaming.loop import AtEnd, CameraLoop, LoopResult
from sam2_edge.runtime.streaming.stats import LoopStats
from sam2_edge.runtime.streaming.stream_log import StreamLog
from sam2_edge.runtime.streaming.systemd import Watchdog, notify

CAMERA_VIDEO_FPS = 15
"""Frames per second of overlays of a camera, which are repeated or left out to keep its time."""


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """Values of `loop_options`."""

    bundle: Path
    every_frame: bool | None
    unpaced: bool
    video: Path | None
    codec: str | None
    fps: Fraction | None
    masks: Path | None
    jsonl: Path | None
    udp: tuple[str, int] | None
    rotate_mb: float
    rotate_minutes: float
    keep_gb: float
    report_s: float
    overwrite: bool
    log_json: bool
    prompts_file: Path | None
    tracking: TrackingOptions

    def needs_logits(self, max_objects: int | None) -> bool:
        """Whether indexed masks are made, in which logits decide whose a pixel is.

        A server, which limits objects, sends such masks to its viewers.
        """
        return self.masks is not None or max_objects is not None

    @property
    def rotation(self) -> RotationPolicy:
        """The rotation policy; raises SinkError if a limit is not positive."""
        return RotationPolicy(
            max_bytes=self.rotate_mb * 2**20,
            max_age_s=60 * self.rotate_minutes,
            keep_bytes=self.keep_gb * 2**30,
        )


def _address(_ctx: click.Context, _option: click.Parameter, text: str | None) -> Any:
    if text is None:
        return None
    address = parse_address(text)
    if address is None:
        shown = text if len(text) <= 80 else f"{text[:80]}... ({len(text)} characters)"
        raise click.BadParameter(
            f"{shown!r} is not HOST:PORT; give a port from 1 to 65535, and an IPv6 address in "
            "brackets, as in [::1]:5005"
        )
    return address


def _number_option(name: str, default: float, text: str) -> Decorator:
    above_zero = click.FloatRange(min=0, min_open=True)
    return click.option(name, type=above_zero, default=default, show_default=True, help=text)


loop_options = grouped(
    "options",
    LoopOptions,
    bundle_option,
    prompt_options,
    prompts_file_option,
    click.option(
        "--every-frame/--latest-frame",
        default=None,
        help="Track every frame, or drop frames that arrive while the model is busy. "
        "[default: latest; every for files]",
    ),
    click.option("--unpaced", is_flag=True, help="Read files and synth as fast as possible."),
    click.option(
        "--video",
        type=PATH,
        help="Overlay video: a file (.mp4, .mkv, .avi), or a folder for a series of them (.mp4).",
    ),
    codec_option,
    fps_option("that of a file; 15 for a camera"),
    click.option("--masks", type=PATH, help="Folder for PNG masks, in subfolders."),
    click.option(
        "--jsonl",
        type=PATH,
        help="JSON lines: a file (.jsonl), a folder for a series of them, or - for stdout.",
    ),
    click.option(
        "--udp", metavar="HOST:PORT", callback=_address, help="Send every JSON line as a datagram."
    ),
    _number_option("--rotate-mb", 512, "Start a new file at this size, MiB."),
    _number_option("--rotate-minutes", 60, "Start a new file at this age."),
    _number_option("--keep-gb", 8, "Delete the oldest files of a kind beyond this total, GiB."),
    _number_option("--report-s", 10, "Seconds between log reports."),
    overwrite_option,
    click.option("--log-json", is_flag=True, help="Log as JSON lines."),
    tracking_options,
)


def make_loop(
    source: str,
    options: LoopOptions,
    prompts: Sequence[Prompt],
    watchdog: Watchdog,
    max_objects: int | None = None,
    *,
    at_end: AtEnd = "stop",
) -> CameraLoop:
    """Set up logging and outputs, load the model, and return the loop.

    Args:
        source: A location for `open_camera`, or "synth" or "synth:SEED" for the synthetic camera.
        options: Command-line options.
        prompts: Prompts for the first frame, unless there is a file of them.
        watchdog: Pinged by the loop.
        max_objects: Objects up to which viewers add new ones; None for no limit.
        at_end: What happens after the last frame of a file.
    """
    check_rotation(click.get_current_context(), options.video, options.jsonl)
    bundle = load_bundle(options.bundle)
    found = find_source(source, every_frame=options.every_frame, paced=not options.unpaced)
    by_frame = choose_prompts(options.prompts_file, prompts, 0)
    check_loop_prompts(by_frame, found, indexed=options.needs_logits(max_objects))
    sinks = make_sinks(options, found.fps)
    set_up_logging(as_json=options.log_json)
    return CameraLoop(
        found.camera,
        prompts=by_frame,
        max_objects=max_objects,
        sinks=sinks,
        tracker=options.tracking.open_tracker(
            bundle, remember_absent=False, logits=options.needs_logits(max_objects)
        ),
        every_frame=found.every_frame,
        paced=found.paced,
        at_end=at_end,
        heartbeat=watchdog.ping,
    )


def check_loop_prompts(prompts: PromptsByFrame, source: LoopSource, *, indexed: bool) -> None:
    """Check the prompts of a source as far as they can be without a frame.

    Args:
        prompts: The prompts.
        source: The source.
        indexed: Whether indexed masks are made of the objects.

    Raises:
        PromptError: If a prompt is invalid, or on a frame that may be dropped.
    """
    if indexed:
        check_mask_ids(prompts)
    later = [frame for frame, group in prompts.items() if frame > 0 and group]
    if later and not source.every_frame:
        raise PromptError(
            f"a prompt is on frame {later[0]}, which may be dropped while the model is busy; put "
            "it on frame 0, or add --every-frame"
        )
    for group in prompts.values():
        prompts_by_object(group)


def make_sinks(options: LoopOptions, file_fps: float | None) -> list[Sink]:
    """Open the outputs of one source; `file_fps` is the frame rate of a file, None for a camera."""
    policy = options.rotation
    sinks: list[Sink] = []
    if options.video is not None:
        rate = options.fps or file_fps or CAMERA_VIDEO_FPS
        video = RealTimeVideo if file_fps is None else OverlayVideo
        open_video: Callable[[Path], SizedSink] = partial(
            video, fps=rate, codec=options.codec, overwrite=options.overwrite
        )
        sinks.append(video_sink(options.video, open_video, policy, codec=options.codec))
    if options.masks is not None:
        sinks.append(mask_sink(options.masks, policy))
    if options.jsonl is not None:
        sinks.append(jsonl_sink(options.jsonl, policy, overwrite=options.overwrite))
    if options.udp is not None:
        sinks.append(UdpJson(*options.udp))
    return sinks


def run_loop(
    stats: LoopStats,
    report_s: float,
    on_result: Callable[[LoopResult], None] = lambda _: None,
) -> None:
    """Run a loop to its end and log its statistics.

    Args:
        stats: Statistics of the loop to run.
        report_s: Seconds between reports.
        on_result: Called with every result, in this thread. An error that it raises is logged.

    Raises:
        PromptError: If a prompt is invalid on the first frame.
        SinkError: At the end, if results could not be written.
        BrokenPipeError: At the end, if the reader of results closed standard output or a pipe.
    """
    loop, last_s = stats.loop, time.monotonic()
    log, show = Guarded("the report", report), Guarded("showing a result", on_result)
    for tracked in loop:
        if loop.tracked == 1:
            notify("READY=1")
        stats.observe(tracked)
        show(tracked)
        if time.monotonic() - last_s >= report_s:
            last_s = time.monotonic()
            log("running", stats)
    log("ended", stats)
    if loop.writer.first_failure:
        raise SinkError(f"results are incomplete: {loop.writer.first_failure}")
    if loop.writer.lost_reader:
        raise BrokenPipeError


def report(state: str, stats: LoopStats) -> None:
    """Log the statistics of a loop that is "running" or has "ended"."""
    figures = stats.snapshot()
    text = "  ".join(f"{name} {value}" for name, value in figures.items() if value)
    log = StreamLog("sam2_edge.loop", stats.loop.name)
    log.info("%s: %s", state, text, extra={"figures": figures})


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on the first SIGINT or SIGTERM; a later one interrupts.

    It is called in a thread: locks that it takes may be held by the code that a signal interrupts.
    """
    repeats, stops = Repeats(), SimpleQueue[bool]()

    def wait_and_stop() -> None:
        if stops.get():
            notify("STOPPING=1")
            stop()

    def handle(number: int, frame: Any) -> None:
        interrupt = before[number]
        if repeats.is_first():
            stops.put(True)  # noqa: FBT003 # its only argument
        elif repeats.is_later() and callable(interrupt):
            interrupt(number, frame)

    stopper = threading.Thread(target=wait_and_stop, name="sam2_edge stopper", daemon=True)
    stopper.start()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            signal.signal(number, handle)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stops.put(False)  # noqa: FBT003
        stopper.join()


class _JsonFormatter(logging.Formatter):
    """One JSON object per line; the figures of a report are top-level fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **({"stream": record.stream} if hasattr(record, "stream") else {}),
            **getattr(record, "figures", {}),
        }
        return json.dumps(entry)


def set_up_logging(*, as_json: bool) -> None:
    """Log reports and messages to standard error."""
    package = logging.getLogger("sam2_edge")
    package.setLevel(logging.INFO)
    if as_json:
        handler = log_handler(_JsonFormatter())
        package.handlers, package.propagate = [handler], False
    else:
        notes().print("press Ctrl-C to stop; output written so far is kept")
