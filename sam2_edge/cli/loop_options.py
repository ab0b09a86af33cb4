"""The camera loop of `run` and `serve`: options, outputs, logging and signals."""

from __future__ import annotations

import json
import logging
import re
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

from sam2_edge.cli.loop_outputs import check_rotation, jsonl_sink, mask_sink, video_sink
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
from sam2_edge.errors import PromptError, SinkError, SourceError
from sam2_edge.runtime.prompts import Prompt, prompts_by_object
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sinks.rotation import RotationPolicy, SizedSink
from sam2_edge.runtime.sinks.udp import UdpJson, parse_address
from sam2_edge.runtime.sinks.video import OverlayVideo, RealTimeVideo
from sam2_edge.runtime.sources.camera import Camera, is_camera
from sam2_edge.runtime.sources.location import locate
from sam2_edge.runtime.sources.prompt_file import PromptsByFrame, check_mask_ids
from sam2_edge.runtime.sources.video import open_source
from sam2_edge.runtime.streaming.guarded import Guarded
from sam2_edge.runtime.streaming.loop import AtEnd, CameraLoop, LoopResult
from sam2_edge.runtime.streaming.stats import LoopStats
from sam2_edge.runtime.streaming.systemd import Watchdog, notify
from sam2_edge.synthetic.camera import SyntheticCamera

CAMERA_VIDEO_FPS = 15
"""Frames per second of overlays of a camera, which are repeated or left out to keep its time."""

_log = logging.getLogger("sam2_edge.loop")


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
    return click.option(name, type=float, default=default, show_default=True, help=text)


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
    opener: str | Callable[[], Camera] = source
    paced = not options.unpaced
    synth = _synthetic(source)
    if synth:
        opener = partial(SyntheticCamera, int(synth[1] or 0), paced=paced)
    is_file = is_recorded(source)
    if is_file and not locate(source).path.exists():
        raise SourceError(
            f"{source} does not exist; give a file, a folder of images, a camera's number "
            "or URL, or synth"
        )
    file_fps = open_source(source).fps if is_file else None
    every_frame = is_file if options.every_frame is None else options.every_frame
    by_frame = _prompts(options, prompts, every_frame=every_frame, indexed=max_objects is not None)
    sinks = _sinks(options, file_fps)
    _set_up_logging(as_json=options.log_json)
    return CameraLoop(
        opener,
        prompts=by_frame,
        max_objects=max_objects,
        sinks=sinks,
        # Logits decide to which object of several a pixel of an indexed mask belongs; a server
        # (which limits objects) sends such masks to its viewers.
        tracker=options.tracking.open_tracker(
            options.bundle,
            remember_absent=False,
            logits=options.masks is not None or max_objects is not None,
        ),
        every_frame=every_frame,
        paced=paced,
        at_end=at_end,
        heartbeat=watchdog.ping,
    )


def is_recorded(source: str) -> bool:
    """Return whether a source is a file or a folder rather than a camera or the synthetic one."""
    return not _synthetic(source) and not is_camera(source)


def _synthetic(source: str) -> re.Match[str] | None:
    """Match "synth" and "synth:SEED", unless there is a file of that name, which comes first."""
    return None if Path(source).exists() else re.fullmatch(r"synth(?::(\d+))?", source)


def _prompts(
    options: LoopOptions, typed: Sequence[Prompt], *, every_frame: bool, indexed: bool
) -> PromptsByFrame:
    """Return the prompts by frame, checked as far as they can be without a frame."""
    prompts = choose_prompts(options.prompts_file, typed, 0)
    if indexed or options.masks is not None:
        check_mask_ids(prompts)
    later = [frame for frame, group in prompts.items() if frame > 0 and group]
    if later and not every_frame:
        raise PromptError(
            f"a prompt is on frame {later[0]}, which may be dropped while the model is busy; put "
            "it on frame 0, or add --every-frame"
        )
    for group in prompts.values():
        prompts_by_object(group)
    return prompts


def _sinks(options: LoopOptions, file_fps: float | None) -> list[Sink]:
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
    """
    loop, last_s = stats.loop, time.monotonic()
    report, show = Guarded("the report", _report), Guarded("showing a result", on_result)
    for tracked in loop:
        if loop.tracked == 1:
            notify("READY=1")
        stats.observe(tracked)
        show(tracked)
        if time.monotonic() - last_s >= report_s:
            last_s = time.monotonic()
            report("running", stats)
    report("ended", stats)
    if loop.writer.first_failure:
        raise SinkError(f"results are incomplete: {loop.writer.first_failure}")


def _report(state: str, stats: LoopStats) -> None:
    figures = stats.snapshot()
    text = "  ".join(f"{name} {value}" for name, value in figures.items() if value)
    _log.info("%s: %s", state, text, extra={"figures": figures})


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
            **getattr(record, "figures", {}),
        }
        return json.dumps(entry)


def _set_up_logging(*, as_json: bool) -> None:
    package = logging.getLogger("sam2_edge")
    package.setLevel(logging.INFO)
    if as_json:
        handler = log_handler(_JsonFormatter())
        package.handlers, package.propagate = [handler], False
    else:
        notes().print("press Ctrl-C to stop; output written so far is kept")
