"""A long run of the camera loop under every fault, to check that it stays as it was.

    export MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=131072
    python benchmarks/soak.py [--frames 20000] [--model nano] [--pixels 256] [--json FILE]

The model tracks objects of the synthetic camera, which dies and comes back, hangs, cannot be
opened, raises errors, sends black and broken frames and changes its size; viewers come and go;
random commands come from other threads. Every object is prompted again when the scene starts again.
Exit code 1 unless, at the end, resident memory is within 2 % of its size after the first 2 % of the
run, every command was answered, every output is complete and readable, and nano's masks are as good
as at the start.

`--model random --pixels 64 --objects 1 --threads 1` is for very long runs: a small model with
random weights, which PyTorch exports first. FILE is written every minute, so that a run that is
killed has figures too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from faulty_camera import (
    BLACK,
    BROKEN,
    DIES,
    EMPTY,
    HANGS,
    RAISES,
    REFUSES,
    SIZE_PERIOD,
    FaultyCamera,
    Scene,
)
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from sam2_edge import CameraLoop, LoopError, LoopResult, SinkError, VideoTracker
from sam2_edge.evaluation.metrics import region_similarity
from sam2_edge.runtime.sinks.jsonl import JsonLines
from sam2_edge.runtime.sinks.masks import MaskFolder
from sam2_edge.runtime.sinks.rotation import RotatingSink, RotationPolicy
from sam2_edge.runtime.sinks.video import OverlayVideo
from sam2_edge.runtime.streaming import capture
from sam2_edge.runtime.streaming.commands import MAX_WAITING_COMMANDS
from sam2_edge.runtime.streaming.stats import LoopStats, resident_bytes
from sam2_edge.serve.app import make_app
from sam2_edge.serve.hub import Hub
from sam2_edge.serve.metrics import LoopMetrics
from sam2_edge.serve.security import Access
from sam2_edge.serve.server import run_server
from sam2_edge.synthetic import center_click
from sam2_edge.synthetic.camera import SCENE_FRAMES

ROUND = 2 * SCENE_FRAMES - 2
"""Frames until the scene is at its start again."""

STALL_S = 0.3
"""After which a camera that hangs is abandoned."""

MAX_GROWTH, MAX_LOSS = 0.02, 0.05
"""How much memory may grow, as a share, and J may fall."""

SAMPLES, SETTLING_FRAMES = 50, 1000
"""Memory is sampled this many times; in a run of few frames, it settles for this many."""

SHORT, SHORT_MAX_GROWTH = 5000, 0.15
"""In a shorter run memory is still settling."""

PROGRESS_S = 60.0


class Observer:
    """Compares results with the truth, prompts the objects, and counts."""

    def __init__(self, scene: Scene, camera: FaultyCamera, loop: CameraLoop) -> None:
        self.loop = loop
        self.similarities: dict[int, list[float]] = {}
        self.commands = self.answered = self.refused = self.results = self.lines = 0
        self.tracked = 0
        self.samples: list[dict[str, float]] = []
        self._scene, self._camera = scene, camera
        self._lock = threading.Lock()  # guards commands, answered and refused

    def observe(self, tracked: LoopResult) -> None:
        """Take one result into account; each round of the scene starts with new prompts."""
        self.tracked += int(not tracked.updated)
        count = self.tracked  # a loop in a thread of its own may be ahead
        self.results += 1
        self.lines += len(tracked.result.objects)
        if self._scene.has_truth:
            self._compare(tracked, count)
        if count % ROUND == 1:
            for object_id in range(1, self._scene.objects + 1):
                self._prompt(tracked, object_id)
        if not tracked.updated and count % max(1, self._scene.frames // SAMPLES) == 0:
            self.samples.append(sample(count))
        if count >= self._scene.frames:
            self.loop.close()

    def _compare(self, tracked: LoopResult, count: int) -> None:
        for found in tracked.result.objects:
            true = self._camera.truth(tracked.frame.picture, found.object_id)
            if true.any():
                self._add_similarity(count, region_similarity(found.mask, true))

    def _add_similarity(self, count: int, similarity: float) -> None:
        """Keep J of the first round and of the last two: the observer itself must not grow."""
        number = (count - 1) // ROUND
        self.similarities.setdefault(number, []).append(similarity)
        for old in [n for n in self.similarities if 0 < n < number - 1]:
            del self.similarities[old]

    def _prompt(self, tracked: LoopResult, object_id: int) -> None:
        true = self._camera.truth(tracked.frame.picture, object_id)
        if not true.any():
            return
        if any(o.object_id == object_id for o in tracked.result.objects):
            self.command(lambda: self.loop.remove(object_id))
        self.command(lambda: self.loop.prompt(object_id, points=[center_click(true)]))

    def command(self, submit: Callable[[], Future[Any]]) -> None:
        """Submit a command, and expect its answer unless the loop refuses it."""
        try:
            future = submit()
        except LoopError:
            with self._lock:
                self.refused += 1
            return
        with self._lock:
            self.commands += 1
        future.add_done_callback(self._count_answer)

    def _count_answer(self, _: Future[Any]) -> None:
        with self._lock:
            self.answered += 1


def sample(count: int) -> dict[str, float]:
    """Return what the process holds after `count` frames."""
    return {
        "frames": count,
        "resident_mb": round(resident_bytes() / 2**20, 1),
        "threads": threading.active_count(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
    }


class CheckedLines(JsonLines):
    """JSON lines that are read back when their file is complete, before it may be deleted."""

    read = 0
    last_frame = -1

    def close(self) -> None:
        """Close the file, and check that its lines are whole and in order."""
        super().close()
        for line in self._path.read_text().splitlines():
            frame = json.loads(line)["frame"]
            if frame < CheckedLines.last_frame:
                raise SinkError(f"frame {frame} comes after {CheckedLines.last_frame}")
            CheckedLines.last_frame = frame
            CheckedLines.read += 1


def disturb(observer: Observer, stop: threading.Event) -> None:
    """Submit random commands that are refused or undone."""
    rng = np.random.default_rng(2)
    loop, command = observer.loop, observer.command
    while not stop.wait(0.05):
        draw = rng.random()
        if draw < 0.4:
            command(lambda: loop.remove(77))
        elif draw < 0.6:
            command(lambda: loop.prompt(9, points=[(-5, 3)]))
        elif draw < 0.8:
            point = tuple(rng.integers(0, 45, 2))
            command(lambda point=point: loop.prompt(8, points=[point]))
            command(lambda: loop.remove(8))
        elif draw < 0.81:
            for _ in range(2 * MAX_WAITING_COMMANDS):
                command(lambda: loop.remove(77))
        else:
            loop.pause()
            loop.resume()


def view(port: int, stop: threading.Event, viewed: list[int]) -> None:
    """Connect, receive a few frames or none, and disconnect, again and again."""
    rng = np.random.default_rng(3)
    while not stop.wait(0.1):
        with (
            suppress(WebSocketException, OSError, TimeoutError),
            connect(
                f"ws://127.0.0.1:{port}/ws", max_size=None, compression=None, close_timeout=0.2
            ) as socket,
        ):
            for _ in range(int(rng.integers(0, 20))):
                viewed[0] += isinstance(socket.recv(timeout=1), bytes)


def outputs(folder: Path) -> list[RotatingSink]:
    """Keep the latest lines, videos and masks."""
    latest = RotationPolicy(2**22, 3600, 2**25)
    return [
        RotatingSink(folder, "results", ".jsonl", CheckedLines, latest),
        RotatingSink(folder, "video", ".mp4", partial(OverlayVideo, fps=30.0), latest),
        RotatingSink(folder, "masks", "", MaskFolder, latest),
    ]


def count_frames(path: Path) -> int:
    """Count the readable frames of a video."""
    video, count = cv2.VideoCapture(str(path)), 0
    while video.read()[0]:
        count += 1
    video.release()
    return count


def soak(scene: Scene, folder: Path, report: Path | None) -> dict[str, Any]:
    """Run the loop and return its figures."""
    capture.FIRST_BACKOFF_S = 0.01
    camera = FaultyCamera(scene)
    tracker = VideoTracker(scene.model, threads=scene.threads, remember_absent=False)
    sinks = outputs(folder)
    loop = CameraLoop(camera.open, tracker, every_frame=True, sinks=sinks, stall_s=STALL_S)
    stats, observer, stop = LoopStats(loop), Observer(scene, camera, loop), threading.Event()
    hub, metrics = Hub(loop, stats), LoopMetrics(stats)
    start, viewed, written_s = time.monotonic(), [0], 0.0
    with run_server(make_app([hub], Access(None), metrics), "127.0.0.1", 0) as port:
        helpers = [threading.Thread(target=disturb, args=(observer, stop))]
        viewer = (port, stop, viewed)
        helpers += [threading.Thread(target=view, args=viewer) for _ in range(2)]
        for helper in helpers:
            helper.start()
        for tracked in loop:
            stats.observe(tracked)
            metrics.observe(tracked)
            hub.publish(tracked)
            observer.observe(tracked)
            if report and time.monotonic() - written_s > PROGRESS_S:
                written_s = time.monotonic()
                found = figures(stats, camera, observer, viewed[0], written_s - start)
                write(report, {"finished": False, **found})
        stop.set()
        for helper in helpers:
            helper.join()
    return {
        "finished": True,
        **figures(stats, camera, observer, viewed[0], time.monotonic() - start),
        **read_back(folder),
    }


def figures(
    stats: LoopStats, camera: FaultyCamera, observer: Observer, viewed: int, seconds: float
) -> dict[str, Any]:
    """Return what has been counted so far; lines of unfinished files are not read yet."""
    samples, scene = observer.samples, observer._scene
    settled = max(scene.frames // SAMPLES, min(SETTLING_FRAMES, scene.frames // 20))
    sizes = [s["resident_mb"] for s in samples if s["frames"] >= settled] or [0.0]
    rounds = [float(np.mean(j)) for _, j in sorted(observer.similarities.items())]
    return {
        **stats.snapshot(),
        "seconds": round(seconds, 1),
        "opened": camera.opened,
        "refused_openings": camera.refused,
        "raised": camera.raised,
        "commands": observer.commands,
        "unanswered": observer.commands - observer.answered,
        "refused_commands": observer.refused,
        "results": observer.results,
        "lines": CheckedLines.read,
        "lines_expected": observer.lines,
        "viewed": viewed,
        "early_mb": sizes[0],
        "late_mb": sizes[-1],
        "highest_mb": max(sizes),
        "j_first": round(rounds[0], 4) if rounds else None,
        "j_last": round(rounds[-2], 4) if len(rounds) > 1 else None,  # the last whole round
        "samples": samples,
    }


def read_back(folder: Path) -> dict[str, Any]:
    """Count what can be read of the outputs that are kept."""
    videos = [count_frames(path) for path in folder.glob("*.mp4")]
    masks = sorted(folder.glob("masks-*/*.png"))
    return {
        "videos": len(videos),
        "video_frames": sum(videos),
        "videos_unreadable": videos.count(0),
        "masks": len(masks),
        "masks_unreadable": sum(cv2.imread(str(path)) is None for path in masks),
        "kept_mb": round(sum(p.stat().st_size for p in folder.rglob("*.*")) / 2**20, 1),
    }


def write(report: Path, found: dict[str, Any]) -> None:
    """Write the figures so that the file is whole at any moment."""
    partial_file = report.with_suffix(".part")
    partial_file.write_text(json.dumps(found, indent=1) + "\n")
    partial_file.replace(report)


def problems(found: dict[str, Any]) -> list[str]:
    """Return what is not as it should be."""
    wrong = []
    growth = MAX_GROWTH if found["tracked"] >= SHORT else SHORT_MAX_GROWTH
    if found["late_mb"] > (1 + growth) * found["early_mb"]:
        wrong.append("memory has grown")
    if found["lines"] != found["lines_expected"]:
        wrong.append("output is missing")
    if found["output_failures"] or found["unwritten"]:
        wrong.append("outputs failed")
    if found["videos_unreadable"] or found["masks_unreadable"] or not found["masks"]:
        wrong.append("output is not readable")
    if found["tracked"] < SHORT and found["video_frames"] != found["results"]:
        wrong.append("the video lacks frames")  # later the oldest are deleted
    if found["unanswered"]:
        wrong.append("commands were lost")
    if found["j_last"] is not None and found["j_last"] < found["j_first"] - MAX_LOSS:
        wrong.append("masks are worse than at the start")
    wrong += missing_faults(found)
    if not found["viewed"]:
        wrong.append("no viewer saw a frame")
    return wrong


def missing_faults(found: dict[str, Any]) -> list[str]:
    """Return the kinds of faults that came less than half as often as they should."""
    tracked = found["tracked"]
    expected = {
        "reconnects": DIES * tracked,
        "blank": BLACK * tracked,
        "corrupt": EMPTY * tracked,
        "unsupported": BROKEN * tracked,
        "stalls": HANGS * tracked,
        "raised": RAISES * tracked,
        "refused_openings": REFUSES * DIES * tracked,
        "size_changes": 2 / 3 * tracked / SIZE_PERIOD,
    }
    return [
        f"{kind} came {found[kind]} times instead of {count:.0f}"
        for kind, count in expected.items()
        if count >= 2 and found[kind] < count / 2
    ]


def main() -> None:
    """Print the figures; exit code 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--model", default="nano", help="nano, random, or a bundle")
    parser.add_argument("--threads", type=int, help="of the model; one is faster if it is tiny")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sam2_edge") as folder:
        model = arguments.model
        if model == "random":
            model = str(Path(folder) / "random")
            subprocess.run(
                [sys.executable, Path(__file__).with_name("random_bundle.py"), model], check=True
            )
        scene = Scene(
            model, arguments.threads, arguments.pixels, arguments.objects, arguments.frames
        )
        found = soak(scene, Path(folder) / "results", arguments.json)
    print(json.dumps(found, indent=1))
    if arguments.json:
        write(arguments.json, found)
    wrong = problems(found)
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
