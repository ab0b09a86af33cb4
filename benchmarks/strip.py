"""A strip of frames with masks drawn over them: the picture of the README.

python benchmarks/strip.py docs/images/tracking.png --seeds 1,5 --frames 0,8,16,24,31
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from sam2_edge import VideoTracker
from sam2_edge.evaluation.synthetic import first_prompts
from sam2_edge.runtime.sinks.files import write_image
from sam2_edge.runtime.sinks.overlay import draw
from sam2_edge.synthetic import clip


def main() -> None:
    """Track held-out clips with one click per object and write a row of frames for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--bundle", default="nano")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--frames", default="0,8,16,24,31")
    arguments = parser.parse_args()
    shown = [int(number) for number in arguments.frames.split(",")]
    rows = []
    for seed in map(int, arguments.seeds.split(",")):
        drawn = clip(seed, split="heldout")
        tracker = VideoTracker(arguments.bundle)
        pictures = []
        for index, frame in enumerate(drawn.frames):
            prompts = first_prompts(drawn, "click") if index == 0 else []
            result = tracker.track(frame, prompts)
            if index in shown:
                pictures.append(draw(frame, result))
        rows.append(np.hstack(pictures))
    write_image(arguments.output, np.vstack(rows))


if __name__ == "__main__":
    main()
