"""The camera loop for long, with everything going wrong that can, to see that it stays as it was.

    export MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=131072
    python benchmarks/soak.py [--frames 20000] [--json FILE]

nano follows three objects of the synthetic camera, which dies and comes back, sends black and
broken frames and changes its size; viewers come and go; commands come at random, from other
threads. By rule each object starts anew from a click on it whenever the scene does. Exit code 1
unless at the end resident memory is within 2 % of what it was after a twentieth of the run, every
command was answered, every output is there and readable, and masks are as good as at the start.
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
from dataclasses import dataclass, field
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
ANEW_EVERY = 2 * SCENE_FRAMES - 2
"""Frames until the scene is at its start again."""

DIES, BLACK, BROKEN = 0.005, 0.02, 0.01
"""Shares of frames on which the camera dies (100 times in 20,000), is black, or sends rubbish."""

GROWTH, LOSS = 0.02, 0.05
"""Most that memory may grow, as a share, and that J may fall."""

SHORT, SHORT_GROWTH = 5000, 0.15
"""In a shorter run memory is still settling."""


@dataclass(slots=True)
class Faulty:
    """The synthetic camera with faults, over all times that it is opened."""

    scene: SyntheticCamera = field(
        default_factory=lambda: SyntheticCamera(SEED, size=SIZE, objects=OBJECTS, paced=False)
    )
    ends: bool = False
    opened: int = 0
    given: OrderedDict[int, tuple[int, tuple[int, int]]] = field(default_factory=OrderedDict)
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))
    _good: int = 0

    def open(self) -> Faulty:
        """The same scene, wherever it is."""
        self.opened += 1
        return self

    def close(self) -> None:
        """The scene goes on."""

    def read(self) -> Any:
        """A picture, or a fault."""
        draw = self._rng.random()
        if draw < DIES:
            return None
        if draw < DIES + BLACK:
            return np.zeros((SIZE, SIZE, 3), np.uint8)
        if draw < DIES + BLACK + BROKEN:
            return np.zeros((SIZE, SIZE), np.uint8)
        position = SyntheticCamera.position(self._good)
        picture = self.scene.clip.frames[position]
        size = (SIZE, SIZE)
        if (self._good // 250) % 3 == 2:
            size = (320, 200)
            picture = cv2.resize(picture, size)
        self.given[self._good] = (position, size)
        if len(self.given) > 64:
            self.given.popitem(last=False)
        self._good += 1
        return picture

    def truth(self, index: int, object_id: int) -> np.ndarray:
        """The true mask on a captured frame."""
        position, size = self.given[index]
        mask = self.scene.clip.mask(position, object_id).astype(np.uint8)
        return cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) > 0


@dataclass(slots=True)
class Watch:
    """What is noted as the frames go by."""

    frames: int
    camera: Faulty
    loop: CameraLoop
    similarities: dict[int, list[float]] = field(default_factory=dict)
    futures: list[Future[Any]] = field(default_factory=list)
    answered: int = 0
    commands: int = 0
    results: int = 0
    lines: int = 0
    resident: list[int] = field(default_factory=list)

    def see(self, tracked: LoopResult) -> None:
        """Compare a result with the truth, and do what the rule says."""
        count = self.loop.tracked
        self.results += 1
        self.lines += len(tracked.result.objects)
        for found in tracked.result.objects:
            true = self.camera.truth(tracked.frame.index, found.object_id)
            if true.any():
                self._note(count, region_similarity(found.mask, true))
        if count % ANEW_EVERY == 1:
            for object_id in range(1, OBJECTS + 1):
                self._anew(tracked, object_id)
        self._count_answers()
        if count % max(1, self.frames // 20) == 0:
            self.resident.append(resident_bytes())
        if count >= self.frames:
            self.loop.close()

    def _note(self, count: int, similarity: float) -> None:
        """Keep J of the first round of the scene and of the last two: the watch itself must not
        grow.
        """
        turn = (count - 1) // ANEW_EVERY
        self.similarities.setdefault(turn, []).append(similarity)
        for old in [t for t in self.similarities if 0 < t < turn - 1]:
            del self.similarities[old]

    def _anew(self, tracked: LoopResult, object_id: int) -> None:
        true = self.camera.truth(tracked.frame.index, object_id)
        if not true.any():
            return
        if any(o.object_id == object_id for o in tracked.result.objects):
            self.submit(self.loop.remove(object_id))
        self.submit(self.loop.prompt(object_id, points=[center_click(true)]))

    def submit(self, future: Future[Any]) -> None:
        """Expect an answer."""
        self.commands += 1
        self.futures.append(future)

    def _count_answers(self) -> None:
        done = [f for f in self.futures if f.done()]
        self.answered += len(done)
        self.futures = [f for f in self.futures if not f.done()]


def disturb(watch: Watch, stop: threading.Event) -> None:
    """Commands at random that change nothing for good, or that cannot be obeyed."""
    rng = np.random.default_rng(2)
    while not stop.wait(0.05):
        with suppress(Sam2EdgeError):
            draw = rng.random()
            if draw < 0.4:
                watch.submit(watch.loop.remove(77))
            elif draw < 0.6:
                watch.submit(watch.loop.prompt(9, points=[(-5, 3)]))
            elif draw < 0.8:
                watch.submit(watch.loop.prompt(8, points=[tuple(rng.integers(0, 190, 2))]))
                watch.submit(watch.loop.remove(8))
            else:
                watch.loop.pause()
                watch.loop.resume()


def view(port: int, stop: threading.Event, viewed: list[int]) -> None:
    """A viewer that comes, looks at a few frames, or at none, and goes."""
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
    """Lines that are all kept, and the latest of videos and masks."""
    latest = RotationPolicy(2**22, 3600, 2**25)
    return [
        RotatingSink(folder, "results", ".jsonl", JsonLines, RotationPolicy(2**20, 3600, 2**40)),
        RotatingSink(folder, "video", ".mkv", partial(OverlayVideo, fps=30.0), latest),
        RotatingSink(folder, "masks", "", MaskFolder, latest),
    ]


def frames_in(path: Path) -> int:
    """How many frames of a video can be read."""
    video, count = cv2.VideoCapture(str(path)), 0
    while video.read()[0]:
        count += 1
    video.release()
    return count


def soak(frames: int, folder: Path) -> dict[str, Any]:
    """Run it and say what came of it."""
    camera = Faulty()
    tracker = VideoTracker("nano", remember_absent=False)
    loop = CameraLoop(camera.open, tracker, every_frame=True, sinks=outputs(folder))
    capture.FIRST_BACKOFF_S = 0.01
    stats, watch, stop = LoopStats(loop), Watch(frames, camera, loop), threading.Event()
    hub, metrics = Hub(loop, stats), LoopMetrics(stats)
    start, viewed = time.monotonic(), [0]
    with run_server(make_app(hub, Access(None), metrics), "127.0.0.1", 0) as port:
        helpers = [threading.Thread(target=disturb, args=(watch, stop))]
        looking = (port, stop, viewed)
        helpers += [threading.Thread(target=view, args=looking) for _ in range(2)]
        for helper in helpers:
            helper.start()
        for tracked in loop:
            stats.observe(tracked)
            metrics.observe(tracked)
            hub.publish(tracked)
            watch.see(tracked)
        stop.set()
        for helper in helpers:
            helper.join()
        watch._count_answers()
    lines = [json.loads(x) for f in folder.glob("*.jsonl") for x in f.read_text().splitlines()]
    videos = [frames_in(path) for path in folder.glob("*.mkv")]
    masks = sorted(folder.glob("masks-*/*.png"))
    last_whole_turn = frames // ANEW_EVERY - 1
    first, last = watch.similarities[0], watch.similarities[last_whole_turn]
    resident = [round(size / 2**20, 1) for size in watch.resident]
    return {
        **stats.snapshot(),
        "seconds": round(time.monotonic() - start, 1),
        "opened": camera.opened,
        "commands": watch.commands,
        "unanswered": watch.commands - watch.answered,
        "results": watch.results,
        "lines": len(lines),
        "lines_expected": watch.lines,
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
    """What is not as it should be."""
    wrong = []
    growth = GROWTH if found["tracked"] >= SHORT else SHORT_GROWTH
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
    if found["j_last"] < found["j_first"] - LOSS:
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
    """Print the figures; exit code 1 when something is wrong."""
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
