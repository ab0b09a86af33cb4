"""Textures by number: noise, stripes, checks, cells, gradients and photographs.

A texture depends only on its split and number. The splits share no texture and no photograph, and
only the held-out one has dots and weaves, so it measures generalization to new textures.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.errors import SourceError
from sam2_edge.runtime.sources.image_file import read_image

Split = Literal["train", "heldout"]
SPLIT_NUMBER: dict[Split, int] = {"train": 1, "heldout": 2}
Image = NDArray[np.uint8]
Field = NDArray[np.float32]

SIDE = 256
"""Side of every texture, pixels."""

POOL = 1024
"""Number of textures per split; colors, crops and scales vary with each use."""

PHOTOGRAPH_SHARE = 0.4
"""Share of textures cut from photographs."""

PHOTOGRAPHS: dict[Split, tuple[str, ...]] = {
    "train": (
        "astronaut.png",
        "brick.png",
        "camera.png",
        "coffee.png",
        "coins.png",
        "grass.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "moon.png",
        "page.png",
        "retina.jpg",
        "rocket.jpg",
    ),
    "heldout": ("cell.png", "chelsea.png", "clock_motion.png", "gravel.png", "motorcycle_left.png"),
}
"""Files in scikit-image's wheel; nothing is downloaded."""


@lru_cache(maxsize=POOL)
def texture(number: int, split: Split, *, photographs: bool) -> Image:
    """Return texture `number` of a split, [SIDE, SIDE, 3] uint8 BGR, shared and read-only."""
    rng = np.random.default_rng([SPLIT_NUMBER[split], number % POOL, 7])
    if photographs and rng.random() < PHOTOGRAPH_SHARE:
        image = _photograph_crop(rng, split)
    else:
        image = _pattern(rng, split)
        if rng.random() < 0.25:
            image = _blend(rng, image, _pattern(rng, split))
    image.flags.writeable = False
    return image


def _pattern(rng: np.random.Generator, split: Split) -> Image:
    """Sample a colored pattern of one of the split's families."""
    families = _FAMILIES[split]
    value = families[int(rng.integers(len(families)))](rng)
    return _color(rng, value)


def _blend(rng: np.random.Generator, first: Image, second: Image) -> Image:
    """Return the first texture with patches of the second."""
    mask = (_noise(rng, octaves=2) > rng.uniform(0.4, 0.6)).astype(np.uint8)
    return np.asarray(cv2.copyTo(second, mask, first.copy()), np.uint8)


def _color(rng: np.random.Generator, value: Field) -> Image:
    """Map a field [SIDE, SIDE] in 0..1 to a gradient of 2 to 5 random colors."""
    count = int(rng.integers(2, 6))
    stops = rng.uniform(0, 255, size=(count, 3))
    if rng.random() < 0.3:  # muted: colors close to each other
        stops = stops.mean(axis=0) + 0.35 * (stops - stops.mean(axis=0))
    positions = np.linspace(0, 1, count)
    ramp = np.linspace(0, 1, 256)
    palette = np.stack([np.interp(ramp, positions, stops[:, c]) for c in range(3)], axis=1)
    index = np.clip(value * 255, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(palette.astype(np.uint8)[index])


def _grid(rng: np.random.Generator) -> tuple[Field, Field]:
    """Return coordinates in 0..1, rotated by a random angle."""
    axis = np.linspace(0, 1, SIDE, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    angle = float(rng.uniform(0, 2 * np.pi))
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * x + s * y, c * y - s * x


def _noise(rng: np.random.Generator, octaves: int | None = None) -> Field:
    """Sample value noise with several octaves, stretched to 0..1."""
    octaves = int(rng.integers(1, 6)) if octaves is None else octaves
    cells = int(rng.integers(3, 12))
    total = np.zeros((SIDE, SIDE), np.float32)
    weight = 1.0
    for _ in range(octaves):
        coarse = rng.random((min(cells, SIDE), min(cells, SIDE)), dtype=np.float32)
        total += weight * cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight * 0.6
    return _stretch(total)


def _stretch(value: Field) -> Field:
    low, high = float(value.min()), float(value.max())
    return ((value - low) / max(high - low, 1e-6)).astype(np.float32)


def _stripes(rng: np.random.Generator) -> Field:
    u, _ = _grid(rng)
    wave = np.sin(2 * np.pi * rng.uniform(3, 30) * u + rng.uniform(0, 4) * _noise(rng, 2))
    return (0.5 + 0.5 * np.tanh(rng.uniform(0.8, 6) * wave)).astype(np.float32)


def _checks(rng: np.random.Generator) -> Field:
    u, v = _grid(rng)
    frequency = rng.uniform(2, 16)
    cells = np.floor(frequency * u) + np.floor(frequency * rng.uniform(0.5, 1.5) * v)
    return (0.85 * np.mod(cells, 2) + 0.15 * _noise(rng)).astype(np.float32)


def _gradient(rng: np.random.Generator) -> Field:
    u, v = _grid(rng)
    bend = rng.uniform(-1, 1) * v * v
    return _stretch((u + bend + rng.uniform(0, 0.3) * _noise(rng)).astype(np.float32))


def _cells(rng: np.random.Generator) -> Field:
    """Sample the distance to scattered points: pebbles, scales, leopard spots."""
    seeds = np.full((SIDE, SIDE), 255, np.uint8)
    count = int(rng.integers(20, 300))
    seeds[rng.integers(0, SIDE, count), rng.integers(0, SIDE, count)] = 0
    distance = cv2.distanceTransform(seeds, cv2.DIST_L2, 3)
    return np.clip(distance / rng.uniform(6, 20), 0, 1).astype(np.float32)


def _rings(rng: np.random.Generator) -> Field:
    """Sample distorted rings around a point: wood."""
    u, v = _grid(rng)
    radius = np.hypot(u - rng.uniform(-0.5, 0.5), v - rng.uniform(-0.5, 0.5))
    wave = np.sin(2 * np.pi * rng.uniform(4, 20) * radius + rng.uniform(0, 6) * _noise(rng, 3))
    return (0.5 + 0.5 * wave).astype(np.float32)


def _marble(rng: np.random.Generator) -> Field:
    """Sample noise distorted by noise."""
    base = _noise(rng, 4)
    axis = np.arange(SIDE, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    reach = float(rng.uniform(20, 90))
    return cv2.remap(
        base,
        x + reach * (_noise(rng, 2) - 0.5),
        y + reach * (_noise(rng, 2) - 0.5),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    ).astype(np.float32)


def _dots(rng: np.random.Generator) -> Field:
    """Sample a grid of round dots."""
    u, v = _grid(rng)
    frequency = rng.uniform(4, 18)
    wave = np.sin(2 * np.pi * frequency * u) * np.sin(2 * np.pi * frequency * v)
    return (1 / (1 + np.exp(-8 * (wave - rng.uniform(-0.3, 0.5))))).astype(np.float32)


def _weave(rng: np.random.Generator) -> Field:
    """Sample two crossing waves: cloth."""
    u, v = _grid(rng)
    f, g = rng.uniform(5, 30, 2)
    wave = np.maximum(np.sin(2 * np.pi * f * u), np.sin(2 * np.pi * g * v + 3 * _noise(rng, 1)))
    return _stretch((wave + 0.4 * _noise(rng)).astype(np.float32))


_TRAIN_FAMILIES = (_noise, _stripes, _checks, _gradient, _cells, _rings, _marble)
_FAMILIES: dict[Split, tuple[Callable[[np.random.Generator], Field], ...]] = {
    "train": _TRAIN_FAMILIES,
    "heldout": (*_TRAIN_FAMILIES, _dots, _weave),
}


def _photograph_crop(rng: np.random.Generator, split: Split) -> Image:
    """Sample a square crop of one of the split's photographs."""
    names = PHOTOGRAPHS[split]
    picture = _photograph(names[int(rng.integers(len(names)))])
    height, width = picture.shape[:2]
    side = int(rng.uniform(0.35, 1.0) * min(height, width))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    crop = picture[top : top + side, left : left + side]
    resized = cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)


@lru_cache(maxsize=64)
def _photograph(name: str) -> Image:
    spec = importlib.util.find_spec("skimage")  # locates it without importing it
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(
            "photographs as textures require scikit-image, which is not installed; install it "
            "with: pip install 'sam2_edge[synth]', or give --no-photographs"
        )
    path = Path(spec.submodule_search_locations[0]) / "data" / name
    if not path.is_file():
        raise SourceError(
            f"this scikit-image has no photograph {name}; install a version that does with: "
            "pip install 'sam2_edge[synth]', or give --no-photographs"
        )
    return read_image(path)
