"""The moving picture of the README: a synthetic clip with its clicks beside the tracked masks.

python benchmarks/tracking_gif.py docs/images/tracking.gif --seed 55
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_edge import Prompt, VideoTracker
from sam2_edge.evaluation.synthetic import first_prompts
from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sinks.overlay import draw_mask
from sam2_edge.synthetic import clip

CLICKS_SHOWN_FRAMES = 5
COLORS = 96
FRAME_MS = 100
WHITE, RED = (255, 255, 255), (0, 0, 230)
MASK_COLORS = ((0, 140, 255), (255, 200, 0))
"""BGR, by object."""


def mark_clicks(picture: NDArray[np.uint8], prompts: list[Prompt]) -> None:
    """Draw a dot on every click, in place."""
    for prompt in prompts:
        for x, y in np.asarray(prompt.points):
            center = (round(x), round(y))
            cv2.circle(picture, center, 6, WHITE, -1, cv2.LINE_AA)
            cv2.circle(picture, center, 4, RED, -1, cv2.LINE_AA)


def masks_shown(picture: NDArray[np.uint8], result: FrameResult) -> NDArray[np.uint8]:
    """The picture in dark gray, with its present objects in their own colors and tinted."""
    gray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) // 2
    canvas = cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
    for found, color in zip(result.objects, MASK_COLORS, strict=True):
        if found.present:
            canvas[found.mask] = picture[found.mask]
            draw_mask(canvas, found.mask, color)
    return canvas


def main() -> None:
    """Track one held-out clip from a click per object and write it as an animated GIF."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--bundle", default="nano")
    parser.add_argument("--seed", type=int, default=55)
    arguments = parser.parse_args()
    drawn = clip(arguments.seed, split="heldout")
    tracker = VideoTracker(arguments.bundle)
    prompts = list(first_prompts(drawn, "click"))
    pictures = []
    for index, frame in enumerate(drawn.frames):
        result = tracker.track(frame, prompts if index == 0 else [])
        plain = frame.copy()
        if index < CLICKS_SHOWN_FRAMES:
            mark_clicks(plain, prompts)
        gap = np.full((plain.shape[0], 6, 3), 255, np.uint8)
        shown = np.hstack([plain, gap, masks_shown(frame, result)])
        pictures.append(Image.fromarray(shown[..., ::-1]))
    # One palette for all frames: a palette of its own for each would flicker.
    everything = Image.fromarray(np.vstack([np.asarray(p) for p in pictures]))
    palette = everything.quantize(COLORS, Image.Quantize.MEDIANCUT)
    frames = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    frames[0].save(
        arguments.output, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0
    )


if __name__ == "__main__":
    main()
