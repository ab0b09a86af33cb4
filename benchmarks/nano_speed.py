"""Time per stage of the loop on a video file: decoding, graphs, drawing.

    python benchmarks/nano_speed.py [--bundle nano] [--threads 2] [--frames 200]

Writes a synthetic clip as a video, tracks one object through it, draws the overlay on every frame
and prints the median time of each stage over the second half, in which the memory is full.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sam2_edge import Prompt, VideoTracker, load_bundle
from sam2_edge.evaluation.bench.targets import TimedBackend
from sam2_edge.runtime.backends import open_backend
from sam2_edge.runtime.sinks.encoder import VideoEncoder
from sam2_edge.runtime.sinks.overlay import draw
from sam2_edge.runtime.sources.video import open_source
from sam2_edge.synthetic import center_click, clip


class Clock:
    """Milliseconds by stage and frame."""

    def __init__(self) -> None:
        self.frames: list[dict[str, float]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to a stage of the current frame."""
        start = time.perf_counter()
        yield
        self.frames[-1][name] += 1e3 * (time.perf_counter() - start)

    def next_frame(self) -> None:
        """Start a frame."""
        self.frames.append(defaultdict(float))


def write_video(path: Path, frames: int) -> tuple[float, float]:
    """Write a clip and return a click on its first object."""
    drawn = clip(1, frames=frames, objects=1, split="heldout")
    encoder = VideoEncoder(path, fps=30, size=(256, 256))
    for frame in drawn.frames:
        encoder.write(frame)
    encoder.close()
    return center_click(drawn.mask(0, 1))


def main() -> None:
    """Track, draw and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="nano")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=200)
    arguments = parser.parse_args()
    clock = Clock()
    bundle = load_bundle(arguments.bundle)
    timed = TimedBackend(open_backend(bundle, threads=arguments.threads))
    tracker = VideoTracker(bundle, backend=timed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        click = write_video(path, arguments.frames)
        frames = iter(open_source(path))
        for index in range(arguments.frames):
            clock.next_frame()
            with clock.stage("whole frame"):
                with clock.stage("decoding"):
                    frame = next(frames).picture
                with clock.stage("tracking"):
                    prompts = [Prompt(1, points=[click])] if index == 0 else []
                    result = tracker.track(frame, prompts)
                clock.frames[-1] |= timed.take_times()
                with clock.stage("mask and drawing"):
                    draw(frame, result)
    full = clock.frames[arguments.frames // 2 :]
    for name in full[0]:
        print(f"{name:18} {np.median([f[name] for f in full]):7.2f} ms")
    seconds = sum(f["whole frame"] for f in full) / 1e3
    print(f"{len(full) / seconds:.1f} frames/s over the last {len(full)} frames")


if __name__ == "__main__":
    main()
