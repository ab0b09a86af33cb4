"""Several streams in one process, compared with one: memory and frames per second.

    python benchmarks/streams.py [--model nano] [--streams 4] [--seconds 10] [--rounds 5]

Cameras deliver frames of the synthetic scene, 640 pixels wide, as fast as they are taken. Each
measurement is a process of its own; one stream and several alternate, and medians are compared.
Exit code 1 unless several streams take at most 1.3 times the memory of one and reach at least 90 %
of its frames per second.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge import CameraHub, Prompt
from sam2_edge.runtime.streaming.stats import resident_bytes
from sam2_edge.synthetic import center_click, clip

SIZE_PX, OBJECTS, FRAMES = 640, 2, 30

MAX_MEMORY, MIN_RATE = 1.3, 0.9

WARM_FRAMES = 10
"""Frames of each stream before the clock starts: by then its memory bank is full."""


class Pictures:
    """A camera that repeats a clip forth and back."""

    ends = False

    def __init__(self, frames: list[NDArray[np.uint8]]) -> None:
        self._frames = itertools.cycle([*frames, *frames[-2:0:-1]])

    def read(self) -> NDArray[np.uint8]:
        """Return the next picture at once."""
        return next(self._frames)

    def close(self) -> None:
        """Do nothing."""


def measure(model: str, streams: int, seconds: float) -> dict[str, Any]:
    """Track on this many streams, and return what that took."""
    scene = clip(3, frames=FRAMES, size=SIZE_PX, objects=OBJECTS, split="heldout")
    frames = list(scene.frames)
    objects = range(1, OBJECTS + 1)
    prompts = [Prompt(i, points=[center_click(scene.mask(0, i))]) for i in objects]
    hub = CameraHub(model)
    for number in range(streams):
        hub.add(f"s{number}", lambda: Pictures(frames), prompts=prompts, every_frame=True)
    seen, began_s, first = Counter[str](), 0.0, 0
    for name, _ in hub:
        seen[name] += 1
        now = time.monotonic()
        if not began_s and len(seen) == streams and min(seen.values()) >= WARM_FRAMES:
            began_s, first = now, seen.total()
        if began_s and now - began_s >= seconds:
            break
    return {
        "frames_per_s": (seen.total() - first) / (now - began_s),
        "resident_mb": resident_bytes() / 2**20,
        "fewest": min(seen.values()) / max(seen.values()),
    }


def measured(model: str, streams: int, seconds: float) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--child", str(streams), "--model", model]
    done = subprocess.run(
        [*command, "--seconds", str(seconds)], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compare(model: str, streams: int, seconds: float, rounds: int) -> dict[str, float]:
    """Alternate between one stream and several, and return the medians and their ratios."""
    found: dict[int, list[dict[str, Any]]] = {1: [], streams: []}
    for _ in range(rounds):
        for count, results in found.items():
            results.append(measured(model, count, seconds))
            print(f"{count} streams: {results[-1]}", file=sys.stderr)

    def median(count: int, key: str) -> float:
        return statistics.median(result[key] for result in found[count])

    return {
        **{f"{key} of {n}": round(median(n, key), 2) for n in found for key in found[n][0]},
        "memory": round(median(streams, "resident_mb") / median(1, "resident_mb"), 3),
        "rate": round(median(streams, "frames_per_s") / median(1, "frames_per_s"), 3),
    }


def main() -> None:
    """Print the comparison; exit code 1 if it misses the limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.model, arguments.child, arguments.seconds)))
        return
    found = compare(arguments.model, arguments.streams, arguments.seconds, arguments.rounds)
    print(json.dumps(found, indent=1))
    if found["memory"] > MAX_MEMORY or found["rate"] < MIN_RATE:
        sys.exit(f"memory must be at most {MAX_MEMORY} times, the rate at least {MIN_RATE} times")


if __name__ == "__main__":
    main()
