"""Points, boxes and masks as the original takes them, checked and brought to the model.

The original takes points outside the frame, all labels of the prompt encoder, and empty masks;
`runtime.prompts` does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import LABEL_BOX_BOTTOM_RIGHT, LABEL_BOX_TOP_LEFT, LABEL_PAD
from sam2_edge.errors import PromptError
from sam2_edge.runtime.prompts import (
    MASK_THRESHOLD,
    NO_POINTS,
    ModelPrompt,
    finite_numbers,
)
from sam2_edge.runtime.resampling import antialiased


def as_array(value: Any) -> Any:
    """A PyTorch tensor as a numpy array, without importing PyTorch; anything else as it is."""
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    return value


def points_prompt(
    points: Any,
    labels: Any,
    box: Any,
    *,
    frame_size: tuple[int, int],
    image_size: int,
    normalize: bool,
) -> ModelPrompt:
    """New points and a box in the model's terms, box corners first.

    normalize: coordinates are pixels of a frame of (height, width); otherwise shares of it.

    Raises PromptError that names the value and what is allowed.
    """
    if (points is None) != (labels is None):
        raise PromptError("points and labels must be given together")
    if points is None and box is None:
        raise PromptError("no points and no box; give at least one of them")
    coords, kinds = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
    if points is not None:
        coords, kinds = _points(points, labels)
    if box is not None:
        corners = finite_numbers(as_array(box), "box")
        if corners.size != 4:
            raise PromptError(f"a box of shape {corners.shape}; give x1, y1, x2, y2")
        coords = np.concatenate([corners.reshape(2, 2), coords])
        box_kinds = np.array([LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT], np.int32)
        kinds = np.concatenate([box_kinds, kinds])
    if not len(kinds):
        raise PromptError("there are no points in points and no box; give at least one")
    if normalize:
        height, width = frame_size
        coords = np.divide(coords, np.array([width, height], np.float32), dtype=np.float32)
    return ModelPrompt(coords * np.float32(image_size), kinds)


def joined(old: ModelPrompt | None, new: ModelPrompt) -> ModelPrompt:
    """New points after those that a frame has."""
    if old is None:
        return new
    return ModelPrompt(
        np.concatenate([old.coords, new.coords]), np.concatenate([old.labels, new.labels])
    )


def mask_prompt(mask: Any, image_size: int) -> ModelPrompt:
    """A mask [H,W] of any size in the model's terms.

    As in the original, an array is taken for true and false, a tensor by its values.

    Raises PromptError for another shape.
    """
    given, tensor = np.asarray(as_array(mask)), hasattr(mask, "detach")
    if given.ndim != 2 or 0 in given.shape:
        raise PromptError(f"a mask of shape {given.shape}; give [H, W]")
    values = (given if tensor else given != 0).astype(np.float32)
    if given.shape != (image_size, image_size):
        resized = antialiased(values, (image_size, image_size))
        values = (resized >= MASK_THRESHOLD).astype(np.float32)
    return ModelPrompt(NO_POINTS.coords, NO_POINTS.labels, values)


def _points(points: Any, labels: Any) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    coords = finite_numbers(as_array(points), "points")
    kinds = finite_numbers(as_array(labels), "labels")
    if coords.ndim == 3 and len(coords) == 1:
        coords = coords[0]
    if kinds.ndim == 2 and len(kinds) == 1:
        kinds = kinds[0]
    if coords.size == 0 and kinds.size == 0:
        return np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
    if coords.ndim != 2 or coords.shape[1] != 2:
        raise PromptError(f"points have shape {coords.shape}; give [N, 2] of x, y")
    if kinds.shape != (len(coords),):
        raise PromptError(f"{len(coords)} points and labels of shape {kinds.shape}; give one each")
    for kind in kinds:
        if kind not in range(LABEL_PAD, LABEL_BOX_BOTTOM_RIGHT + 1):
            raise PromptError(
                f"label {kind:g}; give 1 for foreground, 0 for background, 2 and 3 for the corners "
                "of a box or -1 for a point that is none"
            )
    return coords, kinds.astype(np.int32)
