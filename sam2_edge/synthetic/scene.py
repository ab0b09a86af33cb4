"""Scenes of things in depth order over a background, seen by a moving camera; and rendering."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.synthetic import motion
from sam2_edge.synthetic.shapes import Shape, fill, random_shape
from sam2_edge.synthetic.textures import POOL, SIDE, Split, texture

Image = NDArray[np.uint8]

MIN_AREA, MAX_AREA = 0.01, 0.4
"""Range of the areas of things, as shares of the picture."""


@dataclass(frozen=True, slots=True)
class Look:
    """A texture by number, and the color matrix [3, 4] float32 to apply to it."""

    number: int
    color: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Thing:
    """A moving thing.

    Attributes:
        object_id: From 1 for tracked objects, 0 for distractors and occluders.
        shape: Outline in the unit frame.
        look: Texture and colors.
        maps: [T, 2, 3], from the unit frame to the picture, 0..1.
        bend: [T, 2, 3], amplitude, frequency and phase of the outline's waves along x and y.
        texture_scale: Texture repeats per unit of the unit frame.
    """

    object_id: int
    shape: Shape
    look: Look
    maps: motion.Maps
    bend: NDArray[np.float64]
    texture_scale: float


@dataclass(frozen=True, slots=True)
class Scene:
    """Things from back to front; `background_maps` [T, 2, 3] map its texture to the picture."""

    background: Look
    background_maps: motion.Maps
    things: tuple[Thing, ...]


def random_scene(
    rng: np.random.Generator, *, frames: int, objects: int, lookalikes: int = 0
) -> Scene:
    """Sample a scene with `objects` tracked things among distractors and occluders.

    Lookalikes have the shape and look of tracked things, and may cross them.
    """
    view = motion.camera(rng, frames)
    background = _look(rng)
    tracked = [_tracked(rng, frames, i + 1, background) for i in range(objects)]
    extras = [_distractor(rng, frames, tracked) for _ in range(int(rng.integers(0, 4)))]
    unordered = tracked + extras
    things = [unordered[i] for i in rng.permutation(len(unordered))]
    things += [_occluder(rng, t) for t in tracked if rng.random() < 0.4]
    zoom = rng.uniform(0.8, 2.2)
    maps = np.zeros((1, 2, 3))
    maps[:, :, :2] = zoom * np.eye(2)
    maps[:, :, 2] = rng.uniform(1 - zoom, 0, 2) if zoom > 1 else rng.uniform(0, 1 - zoom, 2)
    for index in range(lookalikes):  # sampled last, so that they do not change the other things
        alike = _lookalike(rng, frames, tracked[index % objects])
        things.insert(int(rng.integers(len(things) + 1)), alike)
    moved = tuple(replace(thing, maps=motion.compose(view, thing.maps)) for thing in things)
    return Scene(background, motion.compose(view, maps.repeat(frames, axis=0)), moved)


def _look(rng: np.random.Generator) -> Look:
    return Look(int(rng.integers(POOL)), _color_matrix(rng))


def _color_matrix(rng: np.random.Generator) -> NDArray[np.float32]:
    """Sample a matrix [3, 4] on BGR in 0..255 that swaps, mixes, inverts or scales channels."""
    matrix = np.eye(3)[rng.permutation(3)] if rng.random() < 0.5 else np.eye(3)
    if rng.random() < 0.25:  # toward gray
        matrix = rng.uniform(0.2, 0.8) * matrix + rng.uniform(0.1, 0.3) * np.ones((3, 3))
    matrix = matrix * rng.uniform(0.55, 1.35, size=(3, 1))
    offset = rng.uniform(-40, 40) + rng.uniform(-20, 20, 3)
    if rng.random() < 0.25:
        matrix, offset = -matrix, 255 - offset
    return np.concatenate([matrix, offset[:, None]], axis=1).astype(np.float32)


def _area(rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(MIN_AREA), np.log(MAX_AREA))))


def _thing(
    rng: np.random.Generator, object_id: int, positions: motion.Curve, area: float, look: Look
) -> Thing:
    frames = len(positions)
    speed, strength = rng.uniform(0.05, 0.3), rng.choice([0.0, 0.04, 0.1])
    bend = np.empty((frames, 2, 3))
    for axis in range(2):
        bend[:, axis, 0] = strength * rng.uniform(0.5, 1.0)
        bend[:, axis, 1] = rng.uniform(1, 5)
        bend[:, axis, 2] = rng.uniform(0, 2 * np.pi) + speed * np.arange(frames)
    maps = motion.pose(rng, positions, float(np.sqrt(area)))
    return Thing(object_id, random_shape(rng), look, maps, bend, float(rng.uniform(1.5, 4.0)))


def _tracked(rng: np.random.Generator, frames: int, object_id: int, background: Look) -> Thing:
    area, start = _area(rng), rng.uniform(0.12, 0.88, 2)
    if frames > 1 and rng.random() < 0.2:
        reach = float(np.sqrt(area))
        positions = motion.excursion(rng, frames, start, reach)
    else:
        positions = motion.wander(rng, frames, start)
    look = _look(rng)
    if rng.random() < 0.06:  # camouflage: the background's texture in other colors
        look = Look(background.number, look.color)
    return _thing(rng, object_id, positions, area, look)


def _distractor(rng: np.random.Generator, frames: int, tracked: list[Thing]) -> Thing:
    """Sample an untracked thing, often with the texture, or the shape too, of a tracked one."""
    positions = motion.wander(rng, frames, rng.uniform(0.05, 0.95, 2))
    like = tracked[int(rng.integers(len(tracked)))]
    look = like.look if rng.random() < 0.5 else _look(rng)
    thing = _thing(rng, 0, positions, _area(rng), look)
    return _copy(like, positions, look) if rng.random() < 0.25 else thing


def _lookalike(rng: np.random.Generator, frames: int, like: Thing) -> Thing:
    """Sample a thing that differs from a tracked one only in its position."""
    if rng.random() < 0.5:
        positions = motion.crossing(rng, like.maps[:, :, 2], _side(like))
    else:
        positions = motion.wander(rng, frames, rng.uniform(0.05, 0.95, 2))
    return _copy(like, positions, like.look)


def _copy(thing: Thing, positions: motion.Curve, look: Look) -> Thing:
    """Return an untracked thing of the same shape at other positions."""
    maps = thing.maps.copy()
    maps[:, :, 2] = positions
    return replace(thing, object_id=0, look=look, maps=maps)


def _side(thing: Thing) -> float:
    """Return the side of a thing's unit square in the first frame."""
    return float(np.sqrt(abs(np.linalg.det(thing.maps[0, :, :2]))))


def _occluder(rng: np.random.Generator, target: Thing) -> Thing:
    """Sample a thing that crosses in front of a tracked one."""
    size = _side(target) * rng.uniform(0.8, 1.8)
    positions = motion.crossing(rng, target.maps[:, :, 2], size)
    return _thing(rng, 0, positions, min(size**2, 0.5), _look(rng))


def outline_mask(thing: Thing, frame: int, size: int) -> Image:
    """Return all pixels of a thing in one frame, visible or not: [S, S] uint8 of 0 and 1."""
    mask = np.zeros((size, size), np.uint8)
    matrix = (size * thing.maps[frame]).astype(np.float32)
    bend = thing.bend[frame]

    def placed(points: NDArray[np.float32]) -> NDArray[np.float32]:
        if bend[0, 0]:  # waves along the outline: non-rigid motion
            wave = bend[:, 0] * np.sin(bend[:, 1] * points[:, ::-1] + bend[:, 2])
            points = (points + wave).astype(np.float32)
        return points @ matrix[:, :2].T + matrix[:, 2]

    fill(mask, tuple(tuple(map(placed, part)) for part in thing.shape))
    return mask


class Painter:
    """Renders the frames of one scene; textures are colored once."""

    def __init__(self, scene: Scene, *, size: int, split: Split, photographs: bool) -> None:
        self._scene, self._size = scene, size
        looks = [scene.background, *(thing.look for thing in scene.things)]
        self._textures = [
            np.asarray(
                cv2.transform(texture(k.number, split, photographs=photographs), k.color), np.uint8
            )
            for k in looks
        ]

    def draw(self, frame: int, outlines: list[Image]) -> Image:
        """Render one frame [S, S, 3] uint8 BGR, given the outline mask of each thing."""
        size, scene = self._size, self._scene
        whole = (0, 0, size, size)
        image = self._warp(self._textures[0], size * scene.background_maps[frame], whole)
        for thing, pixels, mask in zip(scene.things, self._textures[1:], outlines, strict=True):
            x, y, width, height = cv2.boundingRect(mask)
            if width == 0:
                continue
            x, y = max(x - 1, 0), max(y - 1, 0)
            width, height = min(width + 2, size - x), min(height + 2, size - y)
            matrix = size * thing.maps[frame]
            matrix[:, :2] /= thing.texture_scale / 2
            # The texture is centered on the thing's origin.
            matrix[:, 2] -= matrix[:, :2] @ np.full(2, 0.5)
            patch = self._warp(pixels, matrix, (x, y, width, height))
            part = image[y : y + height, x : x + width]
            # Blend edge pixels, as a lens does.
            alpha = cv2.blur(mask[y : y + height, x : x + width].astype(np.float32), (3, 3))
            part[:] = cv2.blendLinear(patch, part, alpha, 1 - alpha)
        return image

    def _warp(
        self, pixels: Image, matrix: NDArray[np.float64], box: tuple[int, int, int, int]
    ) -> Image:
        """Map a texture to the part `box` (x, y, width, height) of the picture."""
        x, y, width, height = box
        local = matrix.copy()
        local[:, :2] /= SIDE
        local[:, 2] -= (x, y)
        border = cv2.BORDER_REFLECT_101
        warped = cv2.warpAffine(pixels, local, (width, height), borderMode=border)
        return np.asarray(warped, np.uint8)
