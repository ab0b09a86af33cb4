"""Generated clips: shapes moving over a textured background, with exact masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Clip:
    """frames [T,H,W,3] uint8 BGR; masks [T,H,W] uint8, 1 the disc and 2 the square."""

    frames: NDArray[np.uint8]
    masks: NDArray[np.uint8]


def moving_shapes(
    frames: int = 24,
    size: tuple[int, int] = (128, 128),
    *,
    leaves_at: int | None = None,
    seed: int = 0,
) -> Clip:
    """A moving disc and square; both are out of the picture from frame `leaves_at`."""
    height, width = size
    generator = np.random.default_rng(seed)
    noise = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    background = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) // 2
    pictures, masks = [], []
    for t in range(frames):
        picture, mask = background.copy(), np.zeros(size, np.uint8)
        if leaves_at is None or t < leaves_at:
            _draw(picture, mask, t / max(frames - 1, 1))
        flicker = generator.integers(0, 12, picture.shape, dtype=np.uint8)
        pictures.append(cv2.add(picture, flicker))
        masks.append(mask)
    return Clip(np.stack(pictures), np.stack(masks))


def _draw(picture: NDArray[np.uint8], mask: NDArray[np.uint8], t: float) -> None:
    height, width = mask.shape
    radius = min(height, width) // 6
    disc = (int(width * (0.25 + 0.4 * t)), int(height * (0.3 + 0.2 * np.sin(6 * t))))
    cv2.circle(picture, disc, radius, (40, 200, 230), -1)
    cv2.circle(mask, disc, radius, 1, -1)
    corner = (int(width * (0.65 - 0.4 * t)), int(height * 0.6))
    opposite = (corner[0] + 2 * radius, corner[1] + 2 * radius)
    cv2.rectangle(picture, corner, opposite, (220, 60, 90), -1)
    cv2.rectangle(mask, corner, opposite, 2, -1)


def write_video(
    path: Path, frames: Sequence[NDArray[np.uint8]], *, codec: str = "MJPG", fps: float = 12
) -> Path:
    """Write BGR frames as a video, and return its path."""
    height, width = frames[0].shape[:2]
    fourcc = cv2.VideoWriter.fourcc(*codec)
    writer = cv2.VideoWriter(str(path), fourcc, fps, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def count_frames(path: Path) -> int:
    """Number of frames of a video that can be read."""
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count
