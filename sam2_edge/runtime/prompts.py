"""Prompts: points, boxes and masks in the frame's own pixels, checked and brought to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam2_edge.bundle.contract import (
    LABEL_BACKGROUND,
    LABEL_BOX_BOTTOM_RIGHT,
    LABEL_BOX_TOP_LEFT,
    LABEL_FOREGROUND,
    LABEL_PAD,
)
from sam2_edge.errors import PromptError
from sam2_edge.runtime.resampling import antialiased

MASK_THRESHOLD = 0.5
"""A mask prompt resized to the model's input is binarized here (SAM 2, `add_new_mask`)."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a user says about one object on one frame.

    points: [N,2] x,y in pixels of the frame. labels: [N], 1 foreground, 0 background; all 1 if
    left out. box: x1,y1,x2,y2 in pixels. mask: [H,W], nonzero is the object; excludes the others.
    """

    object_id: int
    points: ArrayLike | None = None
    labels: ArrayLike | None = None
    box: ArrayLike | None = None
    mask: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class ModelPrompt:
    """A checked prompt in the model's terms, for one object.

    coords: [N,2] float32, or [B,N,2] with a row per object; pixels of the S x S input, box corners
    first. labels: [N] or [B,N] int32. mask: [S,S] float32 of 0 and 1, or None.
    """

    coords: NDArray[np.float32]
    labels: NDArray[np.int32]
    mask: NDArray[np.float32] | None = None

    @property
    def wants_multimask(self) -> bool:
        """Whether one click, or none, leaves it open what is meant (SAM 2, `_use_multimask`)."""
        return self.mask is None and len(self.labels) <= 1


NO_POINTS = ModelPrompt(np.zeros((1, 2), np.float32), np.array([LABEL_PAD], np.int32))
"""What the decoder is given where nobody prompts: one padding point."""


def model_prompt(prompt: Prompt, frame_size: tuple[int, int], image_size: int) -> ModelPrompt:
    """Check a prompt against a frame of (height, width) pixels and scale it to the model's input.

    Raises PromptError that names the value and the limit.
    """
    check_object_id(prompt.object_id)
    if prompt.mask is not None:
        if prompt.points is not None or prompt.box is not None:
            raise PromptError("a mask prompt stands alone; give points and boxes in another call")
        mask = _model_mask(prompt.mask, frame_size, image_size)
        return ModelPrompt(NO_POINTS.coords, NO_POINTS.labels, mask)
    if prompt.points is None and prompt.box is None:
        raise PromptError("an empty prompt; give points, a box or a mask")
    parts: list[tuple[NDArray[np.float32], NDArray[np.int32]]] = []
    if prompt.box is not None:
        parts.append(_box_points(prompt.box, frame_size))
    if prompt.points is not None:
        parts.append(_points(prompt.points, prompt.labels, frame_size))
    elif prompt.labels is not None:
        raise PromptError("labels without points; give as many points as labels")
    height, width = frame_size
    scale = np.array([image_size / width, image_size / height], np.float32)
    coords = np.concatenate([c for c, _ in parts]) * scale
    return ModelPrompt(coords, np.concatenate([labels for _, labels in parts]))


def check_object_id(object_id: int) -> None:
    """Raise PromptError unless this can name an object: an integer of at least 1."""
    if isinstance(object_id, bool) or not isinstance(object_id, (int, np.integer)) or object_id < 1:
        raise PromptError(f"object id {object_id!r}; give an integer of at least 1")


def _points(
    points: ArrayLike, labels: ArrayLike | None, frame_size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    coords = finite_numbers(points, "points")
    if coords.ndim != 2 or coords.shape[1] != 2 or len(coords) == 0:
        raise PromptError(f"points have shape {coords.shape}; give [N, 2] of x, y")
    height, width = frame_size
    for x, y in coords:
        if not (0 <= x < width and 0 <= y < height):
            raise PromptError(
                f"point {x:g},{y:g} is outside the frame; x goes from 0 to {width - 1}, y "
                f"from 0 to {height - 1}"
            )
    given = np.ones(len(coords)) if labels is None else finite_numbers(labels, "labels")
    if given.shape != (len(coords),):
        raise PromptError(f"{len(coords)} points and labels of shape {given.shape}; give one each")
    for label in given:
        if label not in (LABEL_BACKGROUND, LABEL_FOREGROUND):
            raise PromptError(f"label {label:g}; give 1 for foreground or 0 for background")
    return coords, given.astype(np.int32)


def _box_points(
    box: ArrayLike, frame_size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """A box as its two corners, the way SAM 2's prompt encoder takes it."""
    values = finite_numbers(box, "box")
    if values.shape != (4,):
        raise PromptError(f"a box of shape {values.shape}; give x1, y1, x2, y2")
    x1, y1, x2, y2 = values
    height, width = frame_size
    text = ",".join(f"{v:g}" for v in values)
    if not (x1 < x2 and y1 < y2):
        raise PromptError(
            f"box {text} is empty; x1,y1 is the top left corner, x2,y2 the bottom right"
        )
    if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        raise PromptError(
            f"box {text} is outside the frame; x goes from 0 to {width}, y from 0 to {height}"
        )
    labels = np.array([LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT], np.int32)
    return values.reshape(2, 2), labels


def _model_mask(
    mask: NDArray[Any], frame_size: tuple[int, int], image_size: int
) -> NDArray[np.float32]:
    given = np.asarray(mask)
    if given.shape != frame_size:
        raise PromptError(
            f"a mask of shape {given.shape} for a frame of {frame_size}; give [H, W] of the "
            "frame's size"
        )
    binary = (given != 0).astype(np.float32)
    if not binary.any():
        raise PromptError("the mask is empty; mark the object with nonzero pixels")
    soft = antialiased(binary, (image_size, image_size))
    resized = (soft >= MASK_THRESHOLD).astype(np.float32)
    if not resized.any():
        raise PromptError(
            f"the mask has {int(binary.sum())} pixels and vanishes at the model's {image_size} x "
            f"{image_size}; give a larger mask or a point"
        )
    return resized


def finite_numbers(values: ArrayLike, what: str) -> NDArray[np.float32]:
    """What a user gave as `what`, float32.

    Raises PromptError for what are no finite numbers.
    """
    try:
        array = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise PromptError(f"{what} {values!r} are not numbers; give numbers") from error
    wrong = array[~np.isfinite(array)]
    if wrong.size:
        raise PromptError(f"{what} holds {wrong[0]}, which is not finite; give finite numbers")
    return array


def read_mask(path: str) -> NDArray[np.uint8]:
    """A mask file as [H,W] uint8, nonzero where the object is (any channel of a color picture).

    Raises PromptError when it cannot be read.
    """
    image = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise PromptError(f"mask {path} cannot be read; give a PNG or another picture")
    color = image[..., :3] if image.ndim == 3 else image[..., None]
    return (color != 0).any(axis=2).astype(np.uint8)


def prompts_by_object(prompts: Sequence[Prompt]) -> dict[int, Prompt]:
    """Prompts by object id; two for one object on one frame are an error."""
    found: dict[int, Prompt] = {}
    for prompt in prompts:
        if prompt.object_id in found:
            raise PromptError(
                f"object {prompt.object_id} is prompted twice on one frame; give its points and "
                "box in one prompt"
            )
        found[prompt.object_id] = prompt
    return found
