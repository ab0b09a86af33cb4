"""Several sources in `run` and `serve`: one hub, whose streams have their own outputs and logs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import click

from sam2_edge.bundle import load_bundle
from sam2_edge.cli.loop_options import (
    LoopOptions,
    check_loop_prompts,
    make_sinks,
    report,
    set_up_logging,
)
from sam2_edge.cli.loop_outputs import JSONL, check_rotation, of_stream
from sam2_edge.cli.loop_source import find_source
from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.sinks.codecs import CONTAINERS
from sam2_edge.runtime.sources.prompt_file import PromptsByFrame, load_stream_prompts
from sam2_edge.runtime.streaming.camera_hub import CameraHub
from sam2_edge.runtime.streaming.guarded import Guarded
from sam2_edge.runtime.streaming.loop import AtEnd, LoopResult
from sam2_edge.runtime.streaming.stats import LoopStats
from sam2_edge.runtime.streaming.systemd import Watchdog, notify
from sam2_edge.runtime.tracker import VideoTracker


def make_hub(
    sources: Mapping[str, str],
    options: LoopOptions,
    prompts: Sequence[Prompt],
    max_objects: int | None = None,
    *,
    at_end: AtEnd = "stop",
) -> CameraHub:
    """Set up logging and the outputs of all streams, load the model once, and return the hub.

    Args:
        sources: Sources by name.
        options: Command-line options.
        prompts: Prompts that were typed, which several sources cannot share.
        max_objects: Objects per stream up to which viewers add new ones; None for no limit.
        at_end: What happens after the last frame of a file.
    """
    check_rotation(click.get_current_context(), options.video, options.jsonl)
    bundle = load_bundle(options.bundle)
    found = {
        name: find_source(source, every_frame=options.every_frame, paced=not options.unpaced)
        for name, source in sources.items()
    }
    by_stream = _prompts(options, prompts, sources)
    logits = options.needs_logits(max_objects)
    for name, source in found.items():
        check_loop_prompts(by_stream[name], source, indexed=logits)
    sinks = {
        name: make_sinks(_outputs_of(options, name), source.fps) for name, source in found.items()
    }
    set_up_logging(as_json=options.log_json)
    tracking, heartbeats = options.tracking, Heartbeats(Watchdog(), sources)
    hub = CameraHub(bundle, backend=tracking.backend, threads=tracking.threads)
    for name, source in found.items():
        tracker = VideoTracker(
            hub.bundle,
            backend=hub.backend,
            recent_memories=tracking.recent_memories,
            memory_policy=tracking.memory_policy,
            remember_absent=False,
            logits=logits,
        )
        hub.add(
            name,
            source.camera,
            tracker=tracker,
            prompts=by_stream[name],
            max_objects=max_objects,
            every_frame=source.every_frame,
            paced=source.paced,
            at_end=at_end,
            sinks=sinks[name],
            heartbeat=partial(heartbeats.beat, name),
        )
    heartbeats.running = lambda: hub.running
    return hub


def _prompts(
    options: LoopOptions, typed: Sequence[Prompt], streams: Collection[str]
) -> dict[str, PromptsByFrame]:
    if typed:
        raise click.UsageError(
            "a typed prompt fits one camera's picture; for several streams or one with a name, "
            'give --prompts FILE, with a field such as "stream": '
            f'"{next(iter(streams))}" in each entry'
        )
    if options.prompts_file is None:
        return {name: {} for name in streams}
    return load_stream_prompts(options.prompts_file, streams)


def _outputs_of(options: LoopOptions, stream: str) -> LoopOptions:
    return replace(
        options,
        video=of_stream(options.video, stream, CONTAINERS),
        masks=of_stream(options.masks, stream, ()),
        jsonl=of_stream(options.jsonl, stream, JSONL),
    )


def run_hub(
    hub: CameraHub,
    stats: Mapping[str, LoopStats],
    report_s: float,
    on_result: Callable[[LoopResult], None],
) -> None:
    """Run all streams to their ends, and log the statistics of each.

    Args:
        hub: The hub.
        stats: Statistics of its loops, by name.
        report_s: Seconds between reports.
        on_result: Called with every result, in this thread. An error that it raises is logged.

    Raises:
        Sam2EdgeError: At the end, if streams failed or results could not be written.
        BrokenPipeError: At the end, if the reader of results closed standard output or a pipe.
    """
    last_s, is_ready = time.monotonic(), False
    log, show = Guarded("the report", report), Guarded("showing a result", on_result)
    for name, tracked in hub:
        if not is_ready:  # with one frame of any: a camera that is away must not stop the others
            notify("READY=1")
            is_ready = True
        stats[name].observe(tracked)
        show(tracked)
        if time.monotonic() - last_s >= report_s:
            last_s = time.monotonic()
            for running in hub.running:
                log("running", stats[running])
    for figures in stats.values():
        log("ended", figures)
    _raise_failures(hub)


def _raise_failures(hub: CameraHub) -> None:
    failed: dict[str, Exception] = {}
    for name in hub.names:
        failure = hub.failures.get(name) or hub[name].writer.first_failure
        if failure is not None:
            failed[name] = failure
    if failed:
        told = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise Sam2EdgeError(f"{len(failed)} of {len(hub.names)} streams failed: {told}")
    if any(hub[name].writer.lost_reader for name in hub.names):
        raise BrokenPipeError


class Heartbeats:
    """Pings systemd's watchdog when every running stream has shown that it is alive."""

    def __init__(self, watchdog: Watchdog, streams: Collection[str]) -> None:
        self.running: Callable[[], Collection[str]] = lambda: streams
        self._watchdog = watchdog
        self._lock = threading.Lock()
        self._alive = set[str]()

    def beat(self, stream: str) -> None:
        """Note that a stream is alive; called by its thread."""
        with self._lock:
            self._alive.add(stream)
            if self._alive.issuperset(self.running()):
                self._alive.clear()
                self._watchdog.ping()
