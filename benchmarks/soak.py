"""A long run of the camera loop under every fault, to check that it stays as it was.

    export MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=131072
    python benchmarks/soak.py [--frames 20000] [--json FILE]

nano tracks three objects of the synthetic camera, which dies and comes back, sends black and
broken frames and changes its size; viewers come and go; random commands come from other threads.
Every object is prompted again when the scene starts again. Exit code 1 unless, at the end,
resident memory is within 2 % of its size after a twentieth of the run, every command was answered,
every output is complete and readable, and the masks are as good as at the start.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from sam2_edge import CameraLoop, LoopResult, Sam2EdgeError, VideoTracker
from sam2_edge.evaluation.metrics import region_similarity
from sam2_edge.runtime.sinks.jsonl import JsonLines
from sam2_edge.runtime.sinks.masks import MaskFolder
from sam2_edge.runtime.sinks.rotation import RotatingSink, RotationPolicy
from sam2_edge.runtime.sinks.video import OverlayVideo
from sam2_edge.runtime.streaming import capture
from sam2_edge.runtime.streaming.stats import LoopStats, resident_bytes
from sam2_edge.serve.app import make_app
from sam2_edge.serve.hub import Hub
from sam2_edge.serve.metrics import LoopMetrics
from sam2_edge.serve.security import Access
from sam2_edge.serve.server import run_server
from sam2_edge.synthetic import center_click
from sam2_edge.synthetic.camera import SCENE_FRAMES, SyntheticCamera

SEED, SIZE, OBJECTS = 16, 256, 3
ROUND = 2 * SCENE_FRAMES - 2
"""Frames until the scene is at its start again."""

DIES, BLACK, BROKEN = 0.005, 0.02, 0.01
"""Shares of reads on which the camera dies (100 times in 20,000), is black, or sends garbage."""

MAX_GROWTH, MAX_LOSS = 0.02, 0.05
"""How much memory may grow, as a share, and J may fall."""

SHORT, SHORT_MAX_GROWTH = 5000, 0.15
"""In a shorter run memory is still settling."""

KEPT_FRAMES = 64
"""Captured frames whose truth is remembered."""


class FaultyCamera:
    """The synthetic camera with faults, opened again and again."""

    ends = False

    def __init__(self) -> None:
        self.opened = 0
        self._scene = SyntheticCamera(SEED, size=SIZE, objects=OBJECTS, paced=False)
        self._shown: OrderedDict[int, tuple[int, tuple[int, int]]] = OrderedDict()
        self._rng = np.random.default_rng(1)
        self._good = 0

    def open(self) -> FaultyCamera:
        """Continue the scene."""
        self.opened += 1
        return self

    def close(self) -> None:
        """Do nothing."""

    def read(self) -> Any:
        """Return a picture, or a fault."""
        draw = self._rng.random()
        if draw < DIES:
            return None
        if draw < DIES + BLACK:
            return np.zeros((SIZE, SIZE, 3), np.uint8)
        if draw < DIES + BLACK + BROKEN:
            return np.zeros((SIZE, SIZE), np.uint8)
        position = SyntheticCamera.position(self._good)
        picture = self._scene.clip.frames[position]
        size = (SIZE, SIZE)
        if (self._good // 250) % 3 == 2:
            size = (320, 200)
            picture = cv2.resize(picture, size)
        self._shown[self._good] = (position, size)
        if len(self._shown) > KEPT_FRAMES:
            self._shown.popitem(last=False)
        self._good += 1
        return picture

    def truth(self, index: int, object_id: int) -> np.ndarray:
        """Return the true mask on a captured frame."""
        position, size = self._shown[index]
        mask = self._scene.clip.mask(position, object_id).astype(np.uint8)
        return cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) > 0


class Observer:
    """Compares results with the truth, prompts the objects, and counts."""

    def __init__(self, frames: int, camera: FaultyCamera, loop: CameraLoop) -> None:
        self.loop = loop
        self.similarities: dict[int, list[float]] = {}
        self.answered = self.commands = self.results = self.lines = 0
        self.resident: list[int] = []
        self._frames, self._camera = frames, camera
        self._futures: list[Future[Any]] = []

    def observe(self, tracked: LoopResult) -> None:
        """Take one result into account; each round of the scene starts with new prompts."""
        count = self.loop.tracked
        self.results += 1
        self.lines += len(tracked.result.objects)
        for found in tracked.result.objects:
            true = self._camera.truth(tracked.frame.index, found.object_id)
            if true.any():
                self._add_similarity(count, region_similarity(found.mask, true))
        if count % ROUND == 1:
            for object_id in range(1, OBJECTS + 1):
                self._prompt(tracked, object_id)
        self.count_answers()
        if count % max(1, self._frames // 20) == 0:
            self.resident.append(resident_bytes())
        if count >= self._frames:
            self.loop.close()

    def _add_similarity(self, count: int, similarity: float) -> None:
        """Keep J of the first round and of the last two: the observer itself must not grow."""
        number = (count - 1) // ROUND
        self.similarities.setdefault(number, []).append(similarity)
        for old in [n for n in self.similarities if 0 < n < number - 1]:
            del self.similarities[old]

    def _prompt(self, tracked: LoopResult, object_id: int) -> None:
        true = self._camera.truth(tracked.frame.index, object_id)
        if not true.any():
            return
        if any(o.object_id == object_id for o in tracked.result.objects):
            self.expect(self.loop.remove(object_id))
        self.expect(self.loop.prompt(object_id, points=[center_click(true)]))

    def expect(self, future: Future[Any]) -> None:
        """Expect the answer of a command."""
        self.commands += 1
        self._futures.append(future)

    def count_answers(self) -> None:
        """Count the commands that were answered."""
        done = [f for f in self._futures if f.done()]
        self.answered += len(done)
        self._futures = [f for f in self._futures if not f.done()]


def disturb(observer: Observer, stop: threading.Event) -> None:
    """Submit random commands that are refused or undone."""
    rng = np.random.default_rng(2)
    loop = observer.loop
    while not stop.wait(0.05):
        with suppress(Sam2EdgeError):
            draw = rng.random()
            if draw < 0.4:
                observer.expect(loop.remove(77))
            elif draw < 0.6:
                observer.expect(loop.prompt(9, points=[(-5, 3)]))
            elif draw < 0.8:
                observer.expect(loop.prompt(8, points=[tuple(rng.integers(0, 190, 2))]))
                observer.expect(loop.remove(8))
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
    """Keep all JSON lines, and the latest videos and masks."""
    latest = RotationPolicy(2**22, 3600, 2**25)
    return [
        RotatingSink(folder, "results", ".jsonl", JsonLines, RotationPolicy(2**20, 3600, 2**40)),
        RotatingSink(folder, "video", ".mkv", partial(OverlayVideo, fps=30.0), latest),
        RotatingSink(folder, "masks", "", MaskFolder, latest),
    ]


def count_frames(path: Path) -> int:
    """Count the readable frames of a video."""
    video, count = cv2.VideoCapture(str(path)), 0
    while video.read()[0]:
        count += 1
    video.release()
    return count


def soak(frames: int, folder: Path) -> dict[str, Any]:
    """Run the loop and return its figures."""
    capture.FIRST_BACKOFF_S = 0.01
    camera = FaultyCamera()
    tracker = VideoTracker("nano", remember_absent=False)
    loop = CameraLoop(camera.open, tracker, every_frame=True, sinks=outputs(folder))
    stats, observer, stop = LoopStats(loop), Observer(frames, camera, loop), threading.Event()
    hub, metrics = Hub(loop, stats), LoopMetrics(stats)
    start, viewed = time.monotonic(), [0]
    with run_server(make_app(hub, Access(None), metrics), "127.0.0.1", 0) as port:
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
        stop.set()
        for helper in helpers:
            helper.join()
        observer.count_answers()
    lines = [json.loads(x) for f in folder.glob("*.jsonl") for x in f.read_text().splitlines()]
    videos = [count_frames(path) for path in folder.glob("*.mkv")]
    masks = sorted(folder.glob("masks-*/*.png"))
    last_round = frames // ROUND - 1
    first, last = observer.similarities[0], observer.similarities[last_round]
    resident = [round(size / 2**20, 1) for size in observer.resident]
    return {
        **stats.snapshot(),
        "seconds": round(time.monotonic() - start, 1),
        "opened": camera.opened,
        "commands": observer.commands,
        "unanswered": observer.commands - observer.answered,
        "results": observer.results,
        "lines": len(lines),
        "lines_expected": observer.lines,
        "videos": len(videos),
        "video_frames": sum(videos),
        "videos_unreadable": videos.count(0),
        "masks": len(masks),
        "masks_unreadable": sum(cv2.imread(str(path)) is None for path in masks),
        "resident_mb_by_twentieth": resident,
        "early_mb": resident[0],
        "late_mb": resident[-1],
        "viewed": viewed[0],
        "j_first": round(float(np.mean(first)), 4),
        "j_last": round(float(np.mean(last)), 4),
    }


def problems(found: dict[str, Any]) -> list[str]:
    """Return what is not as it should be."""
    wrong = []
    growth = MAX_GROWTH if found["tracked"] >= SHORT else SHORT_MAX_GROWTH
    if found["late_mb"] > (1 + growth) * found["early_mb"]:
        wrong.append("memory has grown")
    if found["lines"] != found["lines_expected"]:
        wrong.append("output is missing")
    if found["videos_unreadable"] or found["masks_unreadable"] or not found["masks"]:
        wrong.append("output is not readable")
    if found["tracked"] < SHORT and found["video_frames"] != found["results"]:
        wrong.append("the video lacks frames")  # later the oldest are deleted
    if found["unanswered"]:
        wrong.append("commands were lost")
    if found["j_last"] < found["j_first"] - MAX_LOSS:
        wrong.append("masks are worse than at the start")
    expected = DIES * found["tracked"] / 2
    if min(found["reconnects"], found["blank"], found["corrupt"]) < max(1, expected):
        wrong.append("faults did not come")
    if found["tracked"] > 800 and not found["size_changes"]:
        wrong.append("the size did not change")
    if not found["viewed"]:
        wrong.append("no viewer saw a frame")
    return wrong


def main() -> None:
    """Print the figures; exit code 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sam2_edge") as folder:
        found = soak(arguments.frames, Path(folder))
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    wrong = problems(found)
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
