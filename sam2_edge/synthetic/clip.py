"""Clips by seed: frames, exact masks, presence and occlusion."""

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
"""Least share of the picture that every object shows in the first frame."""

MIN_VISIBLE = 0.4
"""Least share of every object's pixels that are not hidden in the first frame."""

_ATTEMPTS = 40


@dataclass(frozen=True, slots=True)
class SyntheticClip:
    """A clip with its ground truth.

    frames: [T, S, S, 3] uint8, BGR.
    masks: [T, S, S] uint8, the id of the object that is seen at a pixel (1 and up), 0 elsewhere.
    present: [T, O] bool, whether any pixel of an object is seen.
    occluded: [T, O] float32, share of an object's pixels inside the picture that are hidden; 0
        where the object is outside the picture.
    """

    seed: int
    frames: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    present: NDArray[np.bool_]
    occluded: NDArray[np.float32]

    def mask(self, frame: int, object_id: int) -> NDArray[np.bool_]:
        """Pixels [S, S] of one object that are seen in one frame."""
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
    """The clip of a seed; the same arguments give the same clip.

    Every object is seen in the first frame; later it may be hidden or leave the picture. The two
    splits share no texture and no photograph. photographs: whether photographs are among the
    textures; they are files of scikit-image. span: cut the clip at random out of a scene of so many
    frames, at least `frames`; events such as an occlusion are spread over the scene. lookalikes:
    things that are added to the scene in the shape and look of its objects, at other places.

    Raises ValueError for impossible sizes, SourceError without scikit-image.
    """
    length = frames if span is None else span
    if frames < 1 or objects < 1 or size < 16 or length < frames or lookalikes < 0:
        raise ValueError(
            f"frames={frames}, objects={objects}, size={size}, span={span}, "
            f"lookalikes={lookalikes}: at least 1, 1, 16, the number of frames and 0 are needed"
        )
    rng = np.random.default_rng([SPLIT_NUMBER[split], seed, _ATTEMPTS])
    camera = effects.random_camera(rng, length, size)
    start = int(rng.integers(length - frames + 1)) if span else 0
    scene, outlines = _scene_with_visible_start(
        split,
        seed,
        start=start,
        frames=length,
        size=size,
        objects=objects,
        lookalikes=lookalikes,
    )
    painter = Painter(scene, size=size, split=split, photographs=photographs)
    pictures = np.empty((frames, size, size, 3), np.uint8)
    masks = np.empty((frames, size, size), np.uint8)
    occluded = np.zeros((frames, objects), np.float32)
    for t in range(frames):
        drawn = _outlines(scene, start + t, size) if t else outlines
        masks[t] = _visible(scene, drawn)
        occluded[t] = _occluded(scene, drawn, masks[t], objects)
        pictures[t] = effects.apply(camera, painter.draw(start + t, drawn), start + t)
    present = np.stack([(masks == i + 1).any(axis=(1, 2)) for i in range(objects)], axis=1)
    return SyntheticClip(seed, pictures, masks, present, occluded)


def _scene_with_visible_start(
    split: Split, seed: int, *, start: int, frames: int, size: int, objects: int, lookalikes: int
) -> tuple[Scene, list[Image]]:
    """The first of the seed's scenes that shows every object in frame `start`, or the last."""
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([SPLIT_NUMBER[split], seed, attempt])
        scene = random_scene(rng, frames=frames, objects=objects, lookalikes=lookalikes)
        outlines = _outlines(scene, start, size)
        mask = _visible(scene, outlines)
        seen = np.bincount(mask.ravel(), minlength=objects + 1)[1:] / size**2
        hidden = _occluded(scene, outlines, mask, objects)
        if (seen >= MIN_AREA).all() and (hidden <= 1 - MIN_VISIBLE).all():
            break
    return scene, outlines


def center_click(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """The pixel x, y of a mask [H,W] that is furthest from the mask's edge."""
    padded = np.pad(mask.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), mask.shape)
    return float(column), float(row)


def _outlines(scene: Scene, frame: int, size: int) -> list[Image]:
    return [outline_mask(thing, frame, size) for thing in scene.things]


def _visible(scene: Scene, outlines: list[Image]) -> Image:
    """Ids of the objects seen at each pixel, [S, S] uint8."""
    mask = np.zeros_like(outlines[0])
    for thing, outline in zip(scene.things, outlines, strict=True):
        np.copyto(mask, np.uint8(thing.object_id), where=outline.view(np.bool_))
    return mask


def _occluded(
    scene: Scene, outlines: list[Image], mask: Image, objects: int
) -> NDArray[np.float32]:
    """Share [O] of each object's pixels inside the picture that are hidden."""
    share = np.zeros(objects, np.float32)
    seen = np.bincount(mask.ravel(), minlength=objects + 1)
    for thing, outline in zip(scene.things, outlines, strict=True):
        if thing.object_id:
            whole = int(np.count_nonzero(outline))
            share[thing.object_id - 1] = 1 - seen[thing.object_id] / whole if whole else 0.0
    return share
