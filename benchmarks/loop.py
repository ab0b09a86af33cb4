"""The camera loop with nano: latency under a slow model, and the cost of viewers.

    python benchmarks/loop.py [--frames 600] [--seconds 15]

First a camera of 30 frames per second with a model slowed down to 10: the latency from capture to
result in the first and the last tenth of the run. Then the loop on the same camera, which is faster
than three objects can be tracked on two cores, with no viewer, one, six, and none again.
"""

from __future__ import annotations

import argparse
import threading
import time
from contextlib import ExitStack, suppress

import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from sam2_edge import CameraLoop, VideoTracker
from sam2_edge.runtime.streaming.stats import LoopStats
from sam2_edge.serve.app import make_app
from sam2_edge.serve.hub import Hub
from sam2_edge.serve.metrics import LoopMetrics
from sam2_edge.serve.security import Access
from sam2_edge.serve.server import run_server
from sam2_edge.synthetic import center_click
from sam2_edge.synthetic.camera import SyntheticCamera

SEED, SIZE, OBJECTS = 16, 256, 3
SLOW_S = 0.1
VIEWERS = (0, 1, 6, 0)


def prompted_loop() -> CameraLoop:
    """Make a loop with a prompt for every object of its first frame."""
    camera = SyntheticCamera(SEED, size=SIZE, objects=OBJECTS, paced=True)
    loop = CameraLoop(lambda: camera, VideoTracker("nano", remember_absent=False))
    for object_id in range(1, OBJECTS + 1):
        loop.prompt(object_id, points=[center_click(camera.clip.mask(0, object_id))])
    return loop


def latencies(frames: int) -> None:
    """Print latencies with a model that is too slow for the camera."""
    loop, found = prompted_loop(), []
    for tracked in loop:
        found.append(tracked.latency_s)
        time.sleep(max(0.0, SLOW_S - (tracked.latency_s - tracked.waited_s)))
        if len(found) == frames:
            loop.close()
    tenth = frames // 10
    counts = loop.counts
    print(f"{frames} results, {counts.captured} frames captured, {counts.dropped} dropped")
    for name, part in (("first", found[1:tenth]), ("last", found[-tenth:])):
        print(f"latency in the {name} tenth: median {1e3 * np.median(part):.0f} ms")


def watch(port: int, stop: threading.Event) -> None:
    """Receive every frame that comes."""
    with (
        suppress(WebSocketException, OSError),
        connect(f"ws://127.0.0.1:{port}/ws", max_size=None, compression=None) as socket,
    ):
        while not stop.is_set():
            with suppress(TimeoutError):
                socket.recv(timeout=1)


def viewers(seconds: float) -> None:
    """Print the loop's frames per second by number of viewers."""
    loop = prompted_loop()
    stats = LoopStats(loop)
    hub, metrics = Hub(loop, stats), LoopMetrics(stats)
    with ExitStack() as stack:
        port = stack.enter_context(
            run_server(make_app([hub], Access(None), metrics), "127.0.0.1", 0)
        )
        results = iter(loop)
        for count in VIEWERS:
            stop = threading.Event()
            looking = [threading.Thread(target=watch, args=(port, stop)) for _ in range(count)]
            for viewer in looking:
                viewer.start()
            start, frames = time.monotonic(), 0
            while time.monotonic() - start < seconds:
                tracked = next(results)
                stats.observe(tracked)
                hub.publish(tracked)
                frames += 1
            print(f"{count} viewers: {frames / (time.monotonic() - start):.1f} frames/s")
            stop.set()
            for viewer in looking:
                viewer.join()
        results.close()  # type: ignore[attr-defined]


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=600, help="at least 40")
    parser.add_argument("--seconds", type=float, default=15)
    arguments = parser.parse_args()
    latencies(arguments.frames)
    viewers(arguments.seconds)


if __name__ == "__main__":
    main()
