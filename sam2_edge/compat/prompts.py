"""Prompts as the original takes them, for images and video: any label, also outside the frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import (
    LABEL_BOX_BOTTOM_RIGHT,
    LABEL_BOX_TOP_LEFT,
    LABEL_PAD,
    Geometry,
)
from sam2_edge.errors import PromptError
from sam2_edge.runtime.prompts import (
    CLICK_LABELS,
    ModelPrompt,
    finite_numbers,
    prompt_rows,
    resize_mask,
)

ENCODER_LABELS = {
    **CLICK_LABELS,
    LABEL_PAD: "padding",
    LABEL_BOX_TOP_LEFT: "the top left corner of a box",
    LABEL_BOX_BOTTOM_RIGHT: "its bottom right corner",
}
"""Every label that the prompt encoder knows."""


def points_prompt(
    points: Any,
    labels: Any,
    box: Any,
    *,
    size: tuple[int, int],
    image_size: int,
    batched: bool = False,
) -> ModelPrompt:
    """Scale points and boxes, arrays or tensors as in `prompt_rows`, to the model's input.

    Args:
        size: Height and width in the units of the coordinates.
        image_size: Side of the model's input, pixels.

    Returns:
        Rows [B, N, 2]; N is 0 if nothing is given.

    Raises:
        PromptError: For malformed points or boxes, and points without labels.
    """
    if points is not None and labels is None:
        raise PromptError("points without labels; give one label per point")
    coords, kinds = prompt_rows(points, labels, box, allowed_labels=ENCODER_LABELS, batched=batched)
    height, width = size
    # In the original's order, so that the last bit is the same too.
    scaled = coords / np.array([width, height], np.float32) * np.float32(image_size)
    return ModelPrompt(scaled, kinds)


def image_prompt(
    points: Any,
    labels: Any,
    box: Any,
    mask_input: Any,
    *,
    size: tuple[int, int],
    geometry: Geometry,
) -> tuple[ModelPrompt, NDArray[np.float32] | None]:
    """Prepare prompts of B objects on one image; see `points_prompt`.

    Args:
        mask_input: Logits [1, s, s] for all objects, or [B, 1, s, s].

    Returns:
        Rows [B, N, 2], at least one point each as engines require, and logits [B, 1, s, s].

    Raises:
        PromptError: For malformed prompts.
    """
    image_size = geometry.image_size
    prompt = points_prompt(points, labels, box, size=size, image_size=image_size, batched=True)
    rows, count = prompt.labels.shape
    if not count:
        padding = np.full((rows, 1), LABEL_PAD, np.int32)
        prompt = ModelPrompt(np.zeros((rows, 1, 2), np.float32), padding)
    if mask_input is None:
        return prompt, None
    side = geometry.mask_size
    masks = finite_numbers(mask_input, "mask_input")
    masks = masks[None] if masks.ndim == 3 else masks
    if masks.shape[1:] != (1, side, side) or not len(masks):
        raise PromptError(
            f"mask_input of shape {masks.shape}; give [1, {side}, {side}] or [B, 1, {side}, "
            f"{side}] logits of an earlier prediction"
        )
    if len(masks) not in (1, rows):
        raise PromptError(f"{len(masks)} masks for {rows} prompts; give one each, or one for all")
    return prompt, np.broadcast_to(masks, (rows, *masks.shape[1:]))


def join_points(old: ModelPrompt | None, new: ModelPrompt) -> ModelPrompt:
    """Append points to those that a frame has."""
    if old is None:
        return new
    return ModelPrompt(
        np.concatenate([old.coords, new.coords], axis=1),
        np.concatenate([old.labels, new.labels], axis=1),
    )


def mask_prompt(mask: Any, image_size: int) -> NDArray[np.float32]:
    """Resize a mask [H, W] of any size to the model's input [S, S].

    As in the original, arrays are booleans, and a tensor that fits keeps its values.

    Raises:
        PromptError: For another shape, and for values below 0 or not finite, which are logits.
    """
    given = finite_numbers(mask, "mask")
    if given.ndim != 2 or 0 in given.shape:
        raise PromptError(f"a mask of shape {given.shape}; give [H, W]")
    if given.min() < 0:
        raise PromptError(
            f"a mask with values from {given.min():g} to {given.max():g}; give booleans, or 0 and "
            "1, such as logits > 0"
        )
    values = (given if hasattr(mask, "detach") else given != 0).astype(np.float32)
    return values if values.shape == (image_size, image_size) else resize_mask(values, image_size)
