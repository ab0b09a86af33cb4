"""A long run of three streams in one process that fail independently of one another.

    export MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=131072
    python benchmarks/soak_streams.py [--frames 7000] [--pixels 256] [--json FILE]

Each has the faulty camera of `soak.py`, with faults at times of its own, random commands, and JSON
lines; the last one has a broken sink, too. A fourth stream fails at its first frame, and is added
again whenever it has ended. Exit code 1 unless every stream tracks all of its frames with all
faults, its lines are complete, in order and its own, all commands are answered, the broken sink
and the fourth stream harm nobody, and memory stays as it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from faulty_camera import FaultyCamera, Scene
from soak import MAX_GROWTH, SHORT, SHORT_MAX_GROWTH, STALL_S, Observer, disturb, missing_faults

from sam2_edge import CameraHub, FrameResult, Prompt, PromptError, SinkError
from sam2_edge.runtime.sinks.jsonl import JsonLines
from sam2_edge.runtime.sinks.rotation import RotatingSink, RotationPolicy
from sam2_edge.runtime.sources import SourceFrame
from sam2_edge.runtime.streaming import capture
from sam2_edge.runtime.streaming.stats import LoopStats
from sam2_edge.synthetic.camera import SyntheticCamera

NAMES = ("door", "yard", "roof")

SETTLED = 0.1
"""Share of the run after which memory must not grow."""


class Lines:
    """What a stream's JSON lines say when their files are complete."""

    def __init__(self, stream: str) -> None:
        self.stream, self.read, self.last_frame = stream, 0, -1

    def check(self, line: str) -> None:
        """Check that a line is the stream's, and in order."""
        record = json.loads(line)
        if record["stream"] != self.stream or record["frame"] < self.last_frame:
            raise SinkError(f"{self.stream}: {line[:80]} comes after frame {self.last_frame}")
        self.last_frame = record["frame"]
        self.read += 1


class CheckedLines(JsonLines):
    """JSON lines that are read back before their file may be deleted."""

    def __init__(self, path: Path, *, lines: Lines) -> None:
        super().__init__(path)
        self._lines = lines

    def close(self) -> None:
        """Close the file, and check its lines."""
        super().close()
        for line in self._path.read_text().splitlines():
            self._lines.check(line)


class BrokenSink:
    """A sink that fails at its first result."""

    starts_new_file = False

    def write(self, _frame: SourceFrame, _result: FrameResult) -> None:
        """Fail."""
        raise SinkError("the disk is full")

    def close(self) -> None:
        """Do nothing."""


class Stream:
    """One stream with everything that is counted of it."""

    def __init__(self, hub: CameraHub, name: str, number: int, scene: Scene, folder: Path) -> None:
        self.camera = FaultyCamera(scene, seed=number)
        self.lines = Lines(name)
        latest = RotationPolicy(2**20, 3600, 2**23)
        open_lines = partial(CheckedLines, lines=self.lines)
        lines = RotatingSink(folder / name, "results", ".jsonl", open_lines, latest)
        broken = [BrokenSink()] if name == NAMES[-1] else []
        self.loop = hub.add(
            name, self.camera.open, every_frame=True, sinks=[lines, *broken], stall_s=STALL_S
        )
        self.stats = LoopStats(self.loop)
        self.observer = Observer(scene, self.camera, self.loop)

    def figures(self) -> dict[str, Any]:
        """Return what has been counted."""
        return {
            **self.stats.snapshot(),
            "raised": self.camera.raised,
            "refused_openings": self.camera.refused,
            "unanswered": self.observer.commands - self.observer.answered,
            "commands": self.observer.commands,
            "lines": self.lines.read,
            "lines_expected": self.observer.lines,
        }


def add_failing(hub: CameraHub) -> None:
    """Add a stream with an invalid prompt, unless it still runs."""
    if "failing" not in hub.running:
        camera = partial(SyntheticCamera, 5, size=64, paced=False)
        hub.add("failing", camera, prompts=[Prompt(1, points=[(1e5, 0)])])


def soak(scene: Scene, folder: Path) -> dict[str, Any]:
    """Run the streams, and return their figures."""
    capture.FIRST_BACKOFF_S = 0.01
    hub = CameraHub(scene.model, threads=scene.threads)
    streams = {n: Stream(hub, n, i, scene, folder) for i, n in enumerate(NAMES, start=1)}
    add_failing(hub)
    stop, start, failed = threading.Event(), time.monotonic(), 0
    helpers = [
        threading.Thread(target=disturb, args=(stream.observer, stop))
        for stream in streams.values()
    ]
    for helper in helpers:
        helper.start()
    for name, tracked in hub:
        streams[name].stats.observe(tracked)
        streams[name].observer.observe(tracked)
        if isinstance(hub.failures.get("failing"), PromptError):
            failed += 1
            add_failing(hub)
    stop.set()
    for helper in helpers:
        helper.join()
    samples = streams[NAMES[0]].observer.samples
    settled = [s["resident_mb"] for s in samples if s["frames"] >= SETTLED * scene.frames]
    return {
        "seconds": round(time.monotonic() - start, 1),
        "failed": failed,
        "early_mb": settled[0],
        "late_mb": settled[-1],
        "threads": threading.active_count(),
        "streams": {name: stream.figures() for name, stream in streams.items()},
    }


def problems(found: dict[str, Any], frames: int) -> list[str]:
    """Return what is not as it should be."""
    wrong = []
    growth = MAX_GROWTH if frames >= SHORT else SHORT_MAX_GROWTH
    if found["late_mb"] > (1 + growth) * found["early_mb"]:
        wrong.append("memory has grown")
    if not found["failed"]:
        wrong.append("the failing stream was not seen to fail")
    for name, figures in found["streams"].items():
        failures = int(name == NAMES[-1])
        if not frames <= figures["tracked"] <= frames + 2:  # it may be ahead of its closing
            wrong.append(f"{name}: {figures['tracked']} of {frames} frames were tracked")
        if not figures["lines"] or figures["lines"] != figures["lines_expected"]:
            wrong.append(f"{name}: output is missing")
        if figures["output_failures"] != failures:
            wrong.append(f"{name}: {figures['output_failures']} outputs failed, not {failures}")
        if figures["unanswered"]:
            wrong.append(f"{name}: commands were lost")
    counts = list(found["streams"].values())
    faults = {k: sum(c[k] for c in counts) for k, v in counts[0].items() if isinstance(v, int)}
    return wrong + missing_faults(faults)


def main() -> None:
    """Print the figures; exit code 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=7000, help="of each stream")
    parser.add_argument("--model", default="nano", help="nano or a bundle")
    parser.add_argument("--threads", type=int, help="of the model")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    scene = Scene(given.model, given.threads, given.pixels, given.objects, given.frames)
    with tempfile.TemporaryDirectory(prefix="sam2_edge") as folder:
        found = soak(scene, Path(folder))
    text = json.dumps(found, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")
    wrong = problems(found, given.frames)
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
