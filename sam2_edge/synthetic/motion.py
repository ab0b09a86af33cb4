"""Motion of things and of the camera: smooth affine maps per frame.

Maps are [T, 2, 3] float64, from a thing's unit frame (for the camera: from the picture) to the
picture, with coordinates in 0..1. Speeds are per frame; events are spread over the clip.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Maps = NDArray[np.float64]
Curve = NDArray[np.float64]


def smooth(rng: np.random.Generator, frames: int, speed: float) -> Curve:
    """Sample a smooth curve [T] of roughly unit amplitude; `speed` is in radians per frame."""
    t = np.arange(frames)
    curve = np.zeros(frames)
    for weight in (0.8, 0.5, 0.3):
        rate = speed * rng.uniform(0.3, 1.5)
        curve += weight * np.sin(rate * t + rng.uniform(0, 2 * np.pi))
    return curve


def wander(rng: np.random.Generator, frames: int, center: Curve) -> Curve:
    """Sample positions [T, 2] that drift and wobble, starting at `center`."""
    t = np.arange(frames)[:, None]
    pace = rng.choice([0.0, 0.004, 0.012, 0.025])
    direction = rng.uniform(0, 2 * np.pi)
    drift = pace * rng.uniform(0.5, 1.5) * np.array([np.cos(direction), np.sin(direction)])
    reach, speed = rng.uniform(0, 0.12), rng.uniform(0.03, 0.35)
    wobble = np.stack([smooth(rng, frames, speed), smooth(rng, frames, speed)], axis=1)
    path = center + t * drift + reach * (wobble - wobble[0])
    low, span = -0.05, 1.1  # reflected at the edges to stay near the picture
    folded = np.mod(path - low, 2 * span)
    return low + np.minimum(folded, 2 * span - folded)


def excursion(rng: np.random.Generator, frames: int, center: Curve, reach: float) -> Curve:
    """Sample positions [T, 2] that leave the picture by `reach` for part of the clip and return."""
    angle = rng.integers(4) * np.pi / 2 + rng.uniform(-0.4, 0.4)
    direction = np.array([np.cos(angle), np.sin(angle)])
    distance = 1.0 + reach
    middle, width = rng.uniform(0.35, 0.75) * frames, rng.uniform(0.15, 0.3) * frames + 1
    t = np.arange(frames)
    away = 1 / (1 + np.abs((t - middle) / width) ** 6)
    return np.asarray(center + distance * (away - away[0])[:, None] * direction)


def crossing(rng: np.random.Generator, path: Curve, size: float) -> Curve:
    """Sample positions [T, 2] that cross a thing of this size, moving on `path`, at some moment."""
    frames = len(path)
    moment = int(rng.uniform(0.2, 0.9) * frames)
    duration = max(0.12 * frames, 2.0) * rng.uniform(0.6, 1.8)
    angle = rng.uniform(0, 2 * np.pi)
    speed = 2.5 * size / duration * np.array([np.cos(angle), np.sin(angle)])
    shift = 0.0 if frames > 1 else rng.uniform(-0.7, 0.7) * duration
    t = np.arange(frames)[:, None]
    offset = rng.uniform(-0.25, 0.25, 2) * size
    return np.asarray(path[moment] + offset + (t - moment + shift) * speed)


def pose(rng: np.random.Generator, positions: Curve, scale: float) -> Maps:
    """Sample maps of a thing that rotates, scales and shears; `scale` is its initial side."""
    frames = len(positions)
    speed = rng.uniform(0.02, 0.25)
    turn = rng.uniform(0, 2 * np.pi) + rng.choice([0.0, 0.3, 1.0]) * smooth(rng, frames, speed)
    turn = turn + rng.choice([0.0, 0.0, 0.04]) * rng.normal() * np.arange(frames)
    growth = rng.choice([0.0, 0.08, 0.25]) * smooth(rng, frames, speed)
    size = scale * np.exp(growth - growth[0])
    stretch = np.exp(rng.uniform(0, 0.12) * smooth(rng, frames, speed))
    shear = rng.uniform(0, 0.15) * smooth(rng, frames, speed)
    c, s = np.cos(turn), np.sin(turn)
    maps = np.empty((frames, 2, 3))
    maps[:, 0, 0], maps[:, 0, 1] = size * c * stretch, size * (c * shear - s) / stretch
    maps[:, 1, 0], maps[:, 1, 1] = size * s * stretch, size * (s * shear + c) / stretch
    maps[:, :, 2] = positions
    return maps


def camera(rng: np.random.Generator, frames: int) -> Maps:
    """Sample maps that pan, zoom, rotate and shake the scene, starting with the identity."""
    kind = rng.random()
    amount = 0.0 if kind < 0.3 else rng.uniform(0.02, 0.12)
    speed = rng.uniform(0.03, 0.2)
    zoom = np.exp(amount * smooth(rng, frames, speed))
    turn = 0.7 * amount * smooth(rng, frames, speed)
    shift = amount * np.stack([smooth(rng, frames, speed) for _ in range(2)], axis=1)
    shake = rng.choice([0.0, 0.0, 0.004]) * rng.normal(size=(frames, 2))
    zoom, turn, shift = zoom / zoom[0], turn - turn[0], shift - shift[0] + shake - shake[0]
    maps = np.empty((frames, 2, 3))
    c, s = zoom * np.cos(turn), zoom * np.sin(turn)
    maps[:, 0, 0], maps[:, 0, 1] = c, -s
    maps[:, 1, 0], maps[:, 1, 1] = s, c
    center = np.full(2, 0.5)
    maps[:, :, 2] = center + shift - maps[:, :, :2] @ center
    return maps


def compose(outer: Maps, inner: Maps) -> Maps:
    """Return maps that apply `inner`, then `outer`."""
    maps = np.empty_like(inner)
    maps[:, :, :2] = outer[:, :, :2] @ inner[:, :, :2]
    maps[:, :, 2] = np.einsum("tij,tj->ti", outer[:, :, :2], inner[:, :, 2]) + outer[:, :, 2]
    return maps
