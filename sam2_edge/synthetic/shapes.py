"""Shapes of things: polygons in a unit frame, some with holes or several parts."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]

Shape = tuple[tuple[Points, ...], ...]
"""Parts whose union is the shape; each is a closed outline [K, 2], and optionally a hole [J, 2]."""

SHIFT = 4
"""Fractional bits of OpenCV's vertices: outlines move in steps of 1/16 pixel."""


def random_shape(rng: np.random.Generator) -> Shape:
    """Sample a shape of a random kind, with area 1 and its center at 0."""
    kind = rng.random()
    simple = ((0.28, _blob), (0.42, _ellipse), (0.56, _polygon), (0.66, _star), (0.78, _worm))
    for limit, draw in simple:
        if kind < limit:
            return _of_unit_area(((draw(rng),),))
    if kind < 0.86:
        outline = _blob(rng) if rng.random() < 0.5 else _ellipse(rng)
        hole = np.float32(rng.uniform(0.35, 0.6)) * outline + rng.uniform(-0.1, 0.1, 2)
        return _of_unit_area(((outline, hole.astype(np.float32)),))
    return _of_unit_area(_composite(rng))


def fill(mask: NDArray[np.uint8], shape: Shape) -> None:
    """Set the pixels of `mask` [H, W] inside a shape, given in pixels, to 1."""
    for part in shape:
        fixed = [np.round(points * (1 << SHIFT)).astype(np.int32) for points in part]
        cv2.fillPoly(mask, fixed, 1, lineType=cv2.LINE_8, shift=SHIFT)


def _circle(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    return np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(0, 2 * np.pi)


def _polar(angle: NDArray[np.float64], radius: NDArray[np.float64]) -> Points:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)


def _blob(rng: np.random.Generator) -> Points:
    angle = _circle(rng, 64)
    radius = np.ones(64)
    for harmonic in range(1, 6):
        phase = rng.uniform(0, 2 * np.pi)
        radius += rng.uniform(0, 0.45) / harmonic * np.cos(harmonic * angle + phase)
    return _polar(angle, np.maximum(radius, 0.15)) * _stretching(rng, 0.6)


def _ellipse(rng: np.random.Generator) -> Points:
    angle = _circle(rng, 48)
    return _polar(angle, np.ones(48)) * _stretching(rng, 0.35)


def _stretching(rng: np.random.Generator, minimum: float) -> Points:
    return np.array([1.0, rng.uniform(minimum, 1.0)], np.float32)


def _polygon(rng: np.random.Generator) -> Points:
    count = int(rng.integers(3, 9))
    angle = np.sort(_circle(rng, count) + rng.uniform(-0.35, 0.35, count) * 2 * np.pi / count)
    return _subdivide(_polar(angle, rng.uniform(0.6, 1.2, count)))


def _star(rng: np.random.Generator) -> Points:
    count = 2 * int(rng.integers(4, 9))
    radius = np.where(np.arange(count) % 2 == 0, 1.0, rng.uniform(0.35, 0.7))
    return _subdivide(_polar(_circle(rng, count), radius))


def _subdivide(corners: Points, steps: int = 6) -> Points:
    """Add points on straight edges, so that they bend in non-rigid motion."""
    weight = np.linspace(0, 1, steps, endpoint=False, dtype=np.float32)[None, :, None]
    following = np.roll(corners, -1, axis=0)
    return ((1 - weight) * corners[:, None] + weight * following[:, None]).reshape(-1, 2)


def _worm(rng: np.random.Generator) -> Points:
    """Sample an elongated shape along a bent spine."""
    t = np.linspace(-1, 1, 24)
    bend = rng.uniform(-0.6, 0.6) * t**2 + rng.uniform(-0.3, 0.3) * np.sin(3 * t)
    width = rng.uniform(0.1, 0.3) * np.sqrt(np.maximum(1 - t**2, 0.0) + 0.02)
    spine = np.stack([t, bend], axis=1)
    tangent = np.gradient(spine, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    left, right = spine + width[:, None] * normal, spine - width[:, None] * normal
    return np.concatenate([left, right[::-1]]).astype(np.float32)


def _composite(rng: np.random.Generator) -> Shape:
    """Sample a body with one to three limbs."""
    parts = [(_blob(rng),)]
    for _ in range(int(rng.integers(1, 4))):
        limb = (_ellipse, _polygon, _worm)[int(rng.integers(3))](rng)
        angle = rng.uniform(0, 2 * np.pi)
        place = rng.uniform(0.6, 0.9) * np.array([np.cos(angle), np.sin(angle)])
        parts.append(((rng.uniform(0.35, 0.7) * limb + place).astype(np.float32),))
    return tuple(parts)


def _of_unit_area(shape: Shape) -> Shape:
    """Center a shape and scale it to unit area, both measured on a raster."""
    side, scale = 96, 18.0
    mask = np.zeros((side, side), np.uint8)
    fill(mask, _moved(shape, scale, np.full(2, side / 2)))
    moments = cv2.moments(mask, binaryImage=True)
    area = max(moments["m00"], 1.0) / scale**2
    center = np.array([moments["m10"], moments["m01"]]) / max(moments["m00"], 1.0)
    offset = (side / 2 - center) / scale / np.sqrt(area)
    return _moved(shape, 1 / np.sqrt(area), offset)


def _moved(shape: Shape, scale: float, offset: NDArray[np.float64]) -> Shape:
    return tuple(tuple((scale * p + offset).astype(np.float32) for p in part) for part in shape)
