"""Prompts as the original takes them: checked, and brought to rows of the model's own pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam2_edge.bundle.contract import (
    LABEL_BOX_BOTTOM_RIGHT,
    LABEL_BOX_TOP_LEFT,
    LABEL_PAD,
    Geometry,
)
from sam2_edge.errors import PromptError
from sam2_edge.runtime.prompts import finite_numbers

_LABELS = range(LABEL_PAD, LABEL_BOX_BOTTOM_RIGHT + 1)


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts of one picture, a row each.

    coords: [B,N,2] float32, pixels of the S x S input. labels: [B,N] int32. mask_input: [B,1,s,s]
    float32 logits, or None.
    """

    coords: NDArray[np.float32]
    labels: NDArray[np.int32]
    mask_input: NDArray[np.float32] | None = None

    def turns(self, most: int) -> Iterator[Prompts]:
        """The same in groups of at most `most` rows."""
        for start in range(0, len(self.labels), most):
            rows = slice(start, start + most)
            masks = None if self.mask_input is None else self.mask_input[rows]
            yield Prompts(self.coords[rows], self.labels[rows], masks)


def prompt_rows(
    point_coords: ArrayLike | None,
    point_labels: ArrayLike | None,
    box: ArrayLike | None,
    mask_input: ArrayLike | None,
    *,
    size: tuple[int, int],
    geometry: Geometry,
) -> Prompts:
    """Rows of prompts from the arguments of the original's `predict`.

    Box corners come first, then points. Coordinates outside the picture are let through, as the
    original does. size: height and width that coordinates are measured in. Without points and
    boxes there is one padding point, since engines take one at least.

    Raises PromptError that names the value and the limit.
    """
    parts: list[tuple[NDArray[np.float32], NDArray[np.int32]]] = []
    if box is not None:
        parts.append(_box_rows(box))
    if point_coords is not None:
        parts.append(_point_rows(point_coords, point_labels))
    elif point_labels is not None:
        raise PromptError("point_labels without point_coords; give a point for every label")
    counts = [len(labels) for _, labels in parts]
    if len(set(counts)) > 1:
        raise PromptError(f"{counts[0]} boxes and {counts[1]} rows of points; give equally many")
    masks = None if mask_input is None else _mask_rows(mask_input, geometry.mask_size)
    rows = counts[0] if counts else 1
    if masks is not None:
        if len(masks) not in (1, rows):
            raise PromptError(
                f"{len(masks)} masks for {rows} prompts; give one for each, or one for all"
            )
        masks = np.repeat(masks, rows // len(masks), axis=0)
    coords = np.concatenate([c for c, _ in parts], axis=1) if parts else np.zeros((1, 0, 2))
    labels = np.concatenate([x for _, x in parts], axis=1) if parts else np.zeros((1, 0))
    if labels.shape[1] == 0:
        coords, labels = np.zeros((rows, 1, 2)), np.full((rows, 1), LABEL_PAD)
    height, width = size
    side = np.float32(geometry.image_size)
    # In the original's order, so that the last bit is the same too.
    scaled = coords.astype(np.float32) / np.array([width, height], np.float32) * side
    return Prompts(scaled, labels.astype(np.int32), masks)


def _point_rows(
    point_coords: ArrayLike, point_labels: ArrayLike | None
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    if point_labels is None:
        raise PromptError("point_coords without point_labels; give a label for every point")
    coords = finite_numbers(point_coords, "point_coords")
    labels = finite_numbers(point_labels, "point_labels")
    if coords.ndim == 2:
        coords, labels = coords[None], labels[None]
    if coords.ndim != 3 or coords.shape[2] != 2 or len(coords) == 0:
        raise PromptError(f"point_coords of shape {coords.shape}; give [N, 2] or [B, N, 2] of x, y")
    if labels.shape != coords.shape[:2]:
        raise PromptError(
            f"point_labels of shape {labels.shape} for points of shape {coords.shape}; give a "
            "label for every point"
        )
    for label in np.unique(labels):
        if label not in _LABELS:
            raise PromptError(
                f"label {label:g}; give 1 for foreground, 0 for background, -1 for no point, or 2 "
                "and 3 for the corners of a box"
            )
    return coords, labels.astype(np.int32)


def _box_rows(box: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    corners = finite_numbers(box, "box")
    if corners.ndim not in (1, 2) or corners.shape[-1] != 4 or corners.size == 0:
        raise PromptError(f"a box of shape {corners.shape}; give [4] or [B, 4] of x1, y1, x2, y2")
    coords = corners.reshape(-1, 2, 2)
    labels = np.array([[LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT]], np.int32)
    return coords, np.repeat(labels, len(coords), axis=0)


def _mask_rows(mask_input: ArrayLike, side: int) -> NDArray[np.float32]:
    masks = finite_numbers(mask_input, "mask_input")
    if masks.ndim == 3:
        masks = masks[None]
    if masks.ndim != 4 or masks.shape[1:] != (1, side, side) or len(masks) == 0:
        raise PromptError(
            f"mask_input of shape {masks.shape}; give [1, {side}, {side}] or [B, 1, {side}, "
            f"{side}] logits of an earlier prediction"
        )
    return masks
