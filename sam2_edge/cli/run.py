"""`sam2-edge run`: the camera loop, for as long as the camera is there."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from sam2_edge.cli.options import PromptCommand, backend_option, prompt_options, typed_prompts
from sam2_edge.errors import SinkError
from sam2_edge.runtime.backends import BackendName
from sam2_edge.runtime.camera import is_live, open_camera
from sam2_edge.runtime.camera_loop import CameraLoop
from sam2_edge.runtime.meter import Meter
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.rotation import RotatingSink, RotationRule
from sam2_edge.runtime.sinks import JsonLines, MaskFolder, OverlayVideo, RealTimeVideo, Sink
from sam2_edge.runtime.systemd import Watchdog, notify
from sam2_edge.runtime.tracker import VideoTracker
from sam2_edge.runtime.udp import UdpJson

_log = logging.getLogger("sam2_edge.run")


@click.command(cls=PromptCommand)
@click.argument("source")
@click.option("--bundle", type=click.Path(path_type=Path), required=True, help="Exported bundle.")
@prompt_options
@click.option(
    "--every-frame/--latest-frame",
    default=None,
    help="Drop no frame, or those that come while the model works. [latest but for files]",
)
@click.option("--unpaced", is_flag=True, help="Read files and synth as fast as possible.")
@click.option("--video", type=click.Path(path_type=Path), help="Folder for overlay videos (.mkv).")
@click.option("--video-fps", type=click.IntRange(1, 120), default=15, show_default=True)
@click.option("--masks", type=click.Path(path_type=Path), help="Folder for folders of PNG masks.")
@click.option("--jsonl", type=click.Path(path_type=Path), help="Folder for JSON lines.")
@click.option("--udp", metavar="HOST:PORT", help="Send every JSON line there as a datagram.")
@click.option(
    "--rotate-mb", type=float, default=512, show_default=True, help="Begin a new file at this size."
)
@click.option(
    "--rotate-minutes", type=float, default=60, show_default=True, help="Begin one at this age."
)
@click.option(
    "--keep-gb",
    type=float,
    default=8,
    show_default=True,
    help="Delete the oldest files of a kind beyond this.",
)
@click.option("--report-s", type=float, default=10, show_default=True, help="Seconds between logs.")
@click.option("--log-json", is_flag=True, help="Log as JSON lines.")
@backend_option
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads (default: all cores).")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    *,
    source: str,
    bundle: Path,
    every_frame: bool | None,
    unpaced: bool,
    video: Path | None,
    video_fps: int,
    masks: Path | None,
    jsonl: Path | None,
    udp: str | None,
    rotate_mb: float,
    rotate_minutes: float,
    keep_gb: float,
    report_s: float,
    log_json: bool,
    backend: BackendName,
    threads: int | None,
    **_: object,
) -> None:
    """Track objects on SOURCE until it is interrupted, or a file ends.

    SOURCE is the number or device of a camera, csi (a Jetson's), a URL such as rtsp://..., a
    GStreamer pipeline, a video file, a folder of images, or synth, the synthetic camera. Prompts
    are for the first frame. A camera that fails is opened again, and the objects are kept.
    """
    _set_up_logging(as_json=log_json)
    prompts = typed_prompts(ctx)
    rule = RotationRule(int(rotate_mb * 2**20), 60 * rotate_minutes, int(keep_gb * 2**30))
    tracker = VideoTracker(bundle, backend=backend, threads=threads, remember_absent=False)
    sinks: list[Sink] = []
    if video is not None:
        kind = RealTimeVideo if is_live(source) else OverlayVideo
        sinks.append(RotatingSink(video, "overlay", ".mkv", partial(kind, fps=video_fps), rule))
    if masks is not None:
        sinks.append(RotatingSink(masks, "masks", "", MaskFolder, rule))
    if jsonl is not None:
        sinks.append(RotatingSink(jsonl, "results", ".jsonl", JsonLines, rule))
    if udp is not None:
        sinks.append(UdpJson(*_address(udp)))
    loop = CameraLoop(
        partial(open_camera, source, paced=not unpaced),
        tracker,
        every_frame=not is_live(source) if every_frame is None else every_frame,
        sinks=sinks,
    )
    _run(loop, prompts, report_s)


def _run(loop: CameraLoop, prompts: list[Prompt], report_s: float) -> None:
    """Iterate to the end, with a line in the log now and then."""
    meter, watchdog, last = Meter(loop), Watchdog(), time.monotonic()
    added = [
        loop.prompt(p.object_id, points=p.points, labels=p.labels, box=p.box, mask=p.mask)
        for p in prompts
    ]
    with _stopped_by_signals(loop):
        for tracked in loop:
            if loop.tracked == 1:
                for future in added:
                    future.result()  # a prompt that cannot be used ends it at once
                notify("READY=1")
            meter.see(tracked)
            watchdog.alive()
            if time.monotonic() - last >= report_s:
                last = time.monotonic()
                _report("running", meter)
    notify("STOPPING=1")
    _report("ended", meter)
    if loop.output.failures:
        raise SinkError(f"results are incomplete: {loop.output.failures[0]}")


def _report(what: str, meter: Meter) -> None:
    figures = meter.snapshot()
    text = "  ".join(f"{name} {value}" for name, value in figures.items() if value)
    _log.info("%s: %s", what, text, extra={"figures": figures})


@contextmanager
def _stopped_by_signals(loop: CameraLoop) -> Iterator[None]:
    """The first SIGINT or SIGTERM ends the loop after the present frame, a second one at once."""

    def stop(number: int, frame: Any) -> None:
        if asked:
            signal.default_int_handler(number, frame)
        asked.append(number)
        loop.close()

    asked: list[int] = []
    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
