"""Generates clips: frames, exact masks, presence and occlusion."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.synthetic import effects
from sam2_edge.synthetic.scene import Painter, Scene, outline_mask, random_scene
from sam2_edge.synthetic.textures import SPLIT_NUMBER, Split

Image = NDArray[np.uint8]

MIN_AREA = 0.004
"""Minimum visible area of every object in the first frame, as a share of the frame."""

MIN_VISIBLE = 0.4
"""Minimum visible share of every object in the first frame."""

_ATTEMPTS = 40


@dataclass(frozen=True, slots=True)
class SyntheticClip:
    """A clip with its ground truth.

    Attributes:
        seed: Seed of the clip.
        frames: [T, S, S, 3] uint8, BGR.
        masks: [T, S, S] uint8, id of the object visible at each pixel, from 1; 0 for none.
        present: [T, O] bool, whether any pixel of an object is visible.
        occluded: [T, O] float32, hidden share of an object's pixels inside the frame; 0 if the
            object is outside.
    """

    seed: int
    frames: Image
    masks: Image
    present: NDArray[np.bool_]
    occluded: NDArray[np.float32]

    def mask(self, frame: int, object_id: int) -> NDArray[np.bool_]:
        """Return the visible pixels [S, S] of one object in one frame."""
        return self.masks[frame] == object_id


def clip(
    seed: int,
    *,
    frames: int = 32,
    size: int = 256,
    objects: int = 2,
    split: Split = "train",
    photographs: bool = True,
    span: int | None = None,
    lookalikes: int = 0,
) -> SyntheticClip:
    """Generate the clip of a seed; the same arguments always give the same clip.

    Every object is visible in the first frame; later it may be hidden or leave the frame.

    Args:
        seed: Seed of the clip.
        frames: Number of frames.
        size: Side of the frames, pixels.
        objects: Number of tracked objects.
        split: Textures and photographs to use; the two splits share none.
        photographs: Whether textures include photographs, which come with scikit-image.
        span: Length of a longer scene from which the clip is cut at random, at least `frames`;
            events such as occlusions are spread over the scene.
        lookalikes: Number of distractors with the shape and texture of an object.

    Raises:
        ValueError: If a number or size is out of range.
        SourceError: If scikit-image is required but not installed.
    """
    length = frames if span is None else span
    if frames < 1 or objects < 1 or size < 16 or length < frames or lookalikes < 0:
        raise ValueError(
            f"frames={frames}, objects={objects}, size={size}, span={span}, "
            f"lookalikes={lookalikes}: at least 1, 1, 16, the number of frames and 0 are needed"
        )
    rng = np.random.default_rng([SPLIT_NUMBER[split], seed, _ATTEMPTS])
    degradation = effects.random_degradation(rng, length, size)
    start = int(rng.integers(length - frames + 1)) if span else 0
    for attempt in range(_ATTEMPTS):  # until a scene shows every object; otherwise use the last
        rng = np.random.default_rng([SPLIT_NUMBER[split], seed, attempt])
        scene = random_scene(rng, frames=length, objects=objects, lookalikes=lookalikes)
        outlines = _outlines(scene, start, size)
        mask = _visible(scene, outlines)
        areas = np.bincount(mask.ravel(), minlength=objects + 1)[1:] / size**2
        hidden = _occluded(scene, outlines, mask, objects)
        if (areas >= MIN_AREA).all() and (hidden <= 1 - MIN_VISIBLE).all():
            break
    painter = Painter(scene, size=size, split=split, photographs=photographs)
    pictures = np.empty((frames, size, size, 3), np.uint8)
    masks = np.empty((frames, size, size), np.uint8)
    occluded = np.zeros((frames, objects), np.float32)
    for t in range(frames):
        outlines = _outlines(scene, start + t, size) if t else outlines
        masks[t] = _visible(scene, outlines)
        occluded[t] = _occluded(scene, outlines, masks[t], objects)
        picture = painter.draw(start + t, outlines)
        pictures[t] = effects.degrade(picture, degradation, start + t)
    present = np.stack([(masks == i + 1).any(axis=(1, 2)) for i in range(objects)], axis=1)
    return SyntheticClip(seed, pictures, masks, present, occluded)


def center_click(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the pixel (x, y) of a mask [H, W] that is farthest from its edge."""
    padded = np.pad(mask.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), mask.shape)
    return float(column), float(row)


def _outlines(scene: Scene, frame: int, size: int) -> list[Image]:
    return [outline_mask(thing, frame, size) for thing in scene.things]


def _visible(scene: Scene, outlines: list[Image]) -> Image:
    """Return the id of the object visible at each pixel, [S, S] uint8."""
    mask = np.zeros_like(outlines[0])
    for thing, outline in zip(scene.things, outlines, strict=True):
        np.copyto(mask, np.uint8(thing.object_id), where=outline.view(np.bool_))
    return mask


def _occluded(
    scene: Scene, outlines: list[Image], mask: Image, objects: int
) -> NDArray[np.float32]:
    """Return the hidden share [O] of each object's pixels inside the frame."""
    share = np.zeros(objects, np.float32)
    visible = np.bincount(mask.ravel(), minlength=objects + 1)
    for thing, outline in zip(scene.things, outlines, strict=True):
        if thing.object_id:
            whole = int(np.count_nonzero(outline))
            share[thing.object_id - 1] = 1 - visible[thing.object_id] / whole if whole else 0.0
    return share
