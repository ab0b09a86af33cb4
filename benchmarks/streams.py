"""Several streams in one process, compared with one: memory and frames per second.

    python benchmarks/streams.py [--model nano] [--streams 4] [--rounds 15]

Cameras deliver frames of the synthetic scene, 640 pixels wide, as fast as they are taken. Memory is
that of two processes. For the rate, one stream and all run in turns of a second, and the median of
the ratios of neighboring turns counts. Exit code 1 unless several streams take at most 1.3 times
the memory of one and reach at least 90 % of its frames per second.
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

SLICE_S, SETTLING_S = 1.0, 0.2
"""Length of a turn, and of the time after a change that does not count."""

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


def open_hub(model: str, streams: int) -> CameraHub:
    """Open a hub with this many streams of the same scene."""
    scene = clip(3, frames=FRAMES, size=SIZE_PX, objects=OBJECTS, split="heldout")
    frames = list(scene.frames)
    objects = range(1, OBJECTS + 1)
    prompts = [Prompt(i, points=[center_click(scene.mask(0, i))]) for i in objects]
    hub = CameraHub(model)
    for number in range(streams):
        hub.add(f"s{number}", lambda: Pictures(frames), prompts=prompts, every_frame=True)
    return hub


def measure_memory(model: str, streams: int) -> float:
    """Return the resident memory in MiB once every stream's memory bank is full."""
    hub, seen = open_hub(model, streams), Counter[str]()
    for name, _ in hub:
        seen[name] += 1
        if len(seen) == streams and min(seen.values()) >= WARM_FRAMES:
            break
    return resident_bytes() / 2**20


def measure_rates(model: str, streams: int, rounds: int) -> dict[int, list[float]]:
    """Return frames per second with one stream and with all, in turns of `SLICE_S`.

    Short turns in one process: the load of the machine by others changes within seconds.
    """
    hub, seen, number = open_hub(model, streams), Counter[str](), 0
    rates: dict[int, list[float]] = {1: [], streams: []}
    counted, began_s, running = 0, 0.0, streams
    for name, tracked in hub:
        seen[name] += 1
        now = time.monotonic()
        counted += int(not tracked.updated and now >= began_s)
        if not began_s and (len(seen) < streams or min(seen.values()) < WARM_FRAMES):
            continue
        if began_s and now < began_s + SLICE_S:
            continue
        if began_s:
            rates[running].append(counted / (now - began_s))
            number += 1
        if number == 2 * rounds:
            break
        running = streams if number % 2 else 1
        for other in hub.names[1:]:
            (hub[other].resume if running > 1 else hub[other].pause)()
        counted, began_s = 0, time.monotonic() + SETTLING_S
    return rates


def in_process(measurement: str, model: str, streams: int, rounds: int) -> Any:
    """Make a measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", measurement, "--model", model]
    command += ["--streams", str(streams), "--rounds", str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def compare(model: str, streams: int, rounds: int) -> dict[str, float]:
    """Return the memory and the rates of one stream and of several, and their ratios."""
    alone, together = (in_process("memory", model, count, rounds) for count in (1, streams))
    rates = in_process("rates", model, streams, rounds)
    pairs = list(zip(rates["1"], rates[str(streams)], strict=True))
    return {
        "resident_mb of 1": round(alone, 1),
        f"resident_mb of {streams}": round(together, 1),
        "memory": round(together / alone, 3),
        "frames_per_s of 1": round(statistics.median(one for one, _ in pairs), 2),
        f"frames_per_s of {streams}": round(statistics.median(all_ for _, all_ in pairs), 2),
        "rate": round(statistics.median(all_ / one for one, all_ in pairs), 3),
    }


def main() -> None:
    """Print the comparison; exit code 1 if it misses the limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--measure", choices=["memory", "rates"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure == "memory":
        print(json.dumps(measure_memory(given.model, given.streams)))
        return
    if given.measure == "rates":
        print(json.dumps(measure_rates(given.model, given.streams, given.rounds)))
        return
    found = compare(given.model, given.streams, given.rounds)
    print(json.dumps(found, indent=1))
    if found["memory"] > MAX_MEMORY or found["rate"] < MIN_RATE:
        sys.exit(f"memory must be at most {MAX_MEMORY} times, the rate at least {MIN_RATE} times")


if __name__ == "__main__":
    main()
