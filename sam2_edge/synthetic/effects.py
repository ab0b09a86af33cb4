"""Image degradations of a real camera: exposure, blur, noise and compression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.synthetic import motion

Image = NDArray[np.uint8]

_NOISE_SIDE = 640


@dataclass(frozen=True, slots=True)
class Degradation:
    """How the frames of a clip are degraded.

    Attributes:
        gain: [T] float64, exposure.
        offset: [T] float64, brightness in gray levels.
        kernel: Blur kernel, or None.
        noise: Standard deviation of the noise, gray levels.
        noise_at: [T, 2] int64, position in the noise bank from which each frame's noise is cut.
        jpeg: JPEG quality, or None.
    """

    gain: NDArray[np.float64]
    offset: NDArray[np.float64]
    kernel: NDArray[np.float32] | None
    noise: float
    noise_at: NDArray[np.int64]
    jpeg: int | None


def random_degradation(rng: np.random.Generator, frames: int, size: int) -> Degradation:
    """Sample a degradation for a clip with frames of `size` pixels."""
    change = rng.choice([0.0, 0.05, 0.2])
    speed = rng.uniform(0.03, 0.4)
    room = max(_NOISE_SIDE - size, 1)
    return Degradation(
        gain=rng.uniform(0.7, 1.25) * np.exp(change * motion.smooth(rng, frames, speed)),
        offset=rng.uniform(-25, 25) + 60 * change * motion.smooth(rng, frames, speed),
        kernel=_blur_kernel(rng, size) if rng.random() < 0.35 else None,
        noise=float(rng.uniform(1, 12)) if rng.random() < 0.5 else 0.0,
        noise_at=rng.integers(0, room, size=(frames, 2)),
        jpeg=int(rng.integers(25, 90)) if rng.random() < 0.25 else None,
    )


def degrade(image: Image, degradation: Degradation, frame: int) -> Image:
    """Return a degraded copy [S, S, 3] uint8 of one frame."""
    if degradation.kernel is not None:
        image = np.asarray(cv2.filter2D(image, -1, degradation.kernel), np.uint8)
    gain, offset = degradation.gain[frame], degradation.offset[frame]
    exposure = np.zeros((3, 4), np.float32)
    exposure[:, :3] = gain * np.eye(3)
    exposure[:, 3] = offset + 110 * (1 - gain)  # contrast changes around mid-gray
    image = np.asarray(cv2.transform(image, exposure), np.uint8)
    if degradation.noise:
        image = _add_noise(image, degradation.noise, degradation.noise_at[frame])
    if degradation.jpeg is not None:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, degradation.jpeg])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return image


def _blur_kernel(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Sample a small Gaussian, or a short line for motion blur."""
    if rng.random() < 0.5:
        sigma = rng.uniform(0.4, 1.4) * size / 256
        line = cv2.getGaussianKernel(2 * int(np.ceil(2 * sigma)) + 1, sigma)
        return (line @ line.T).astype(np.float32)
    length = max(3, 2 * int(rng.uniform(1, 4) * size / 256) + 1)
    kernel = np.zeros((length, length), np.float32)
    angle, middle = rng.uniform(0, np.pi), length // 2
    reach = middle * np.array([np.cos(angle), np.sin(angle)])
    start, end = np.round(middle - reach).astype(int), np.round(middle + reach).astype(int)
    cv2.line(kernel, (int(start[0]), int(start[1])), (int(end[0]), int(end[1])), 1.0)
    return (kernel / kernel.sum()).astype(np.float32)


def _add_noise(image: Image, strength: float, at: NDArray[np.int64]) -> Image:
    height, width = image.shape[:2]
    bank = _noise_bank(max(_NOISE_SIDE, height + 1, width + 1))
    noise = bank[at[0] : at[0] + height, at[1] : at[1] + width]
    # cv2.addWeighted requires equal depths, so the noise is stored as unsigned around 128.
    return np.asarray(cv2.addWeighted(image, 1.0, noise, strength / 32, -4.0 * strength), np.uint8)


@lru_cache(maxsize=4)
def _noise_bank(side: int) -> Image:
    """Return Gaussian noise [side, side, 3] uint8 with mean 128 and standard deviation 32."""
    noise = np.random.default_rng(11).normal(128, 32, size=(side, side, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)
