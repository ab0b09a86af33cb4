"""Prompts: points, boxes and masks in a frame's own pixels, checked and converted for the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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

MAX_OBJECT_ID = 2**31 - 1
MAX_NAME_LENGTH = 40

CLICK_LABELS = {LABEL_FOREGROUND: "foreground", LABEL_BACKGROUND: "background"}
"""Labels of clicks, with their meanings."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A user's prompt for one object on one frame.

    Attributes:
        object_id: An integer, 1 to `MAX_OBJECT_ID`.
        points: [N, 2] x, y in pixels of the frame.
        labels: [N], 1 foreground, 0 background; all 1 if left out.
        box: x1, y1, x2, y2 in pixels of the frame.
        mask: [H, W] of booleans, or of 0 and one other value; excludes points and box.
        name: The object's name from now on, as in `checked_name`; None leaves it as it is.
    """

    object_id: int
    points: ArrayLike | None = None
    labels: ArrayLike | None = None
    box: ArrayLike | None = None
    mask: ArrayLike | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ModelPrompt:
    """A checked prompt as the graphs take it.

    Attributes:
        coords: [N, 2] float32, or [B, N, 2] with a row per object; pixels of the S x S input, box
            corners first.
        labels: [N] or [B, N] int32.
        mask: [S, S] float32 of 0 and 1, or None.
    """

    coords: NDArray[np.float32]
    labels: NDArray[np.int32]
    mask: NDArray[np.float32] | None = None

    @property
    def wants_multimask(self) -> bool:
        """Whether the prompt is ambiguous: at most one point (SAM 2, `_use_multimask`)."""
        return self.mask is None and self.labels.shape[-1] <= 1


PromptRows = tuple[NDArray[np.float32], NDArray[np.int32]]
"""Coordinates [B, N, 2] and labels [B, N], a row per object."""

NO_POINTS = ModelPrompt(np.zeros((1, 2), np.float32), np.array([LABEL_PAD], np.int32))
"""The decoder's prompt on frames without one: a padding point."""


def model_prompt(prompt: Prompt, frame_size: tuple[int, int], image_size: int) -> ModelPrompt:
    """Check a prompt against a frame of (height, width) pixels and scale it to the model's input.

    Raises:
        PromptError: For a prompt that is malformed, empty or outside the frame.
    """
    coords, labels = check_prompt(prompt)
    if prompt.mask is not None:
        mask = _model_mask(prompt.mask, frame_size, image_size)
        return ModelPrompt(NO_POINTS.coords, NO_POINTS.labels, mask)
    _check_in_frame(coords, labels, frame_size)
    height, width = frame_size
    scale = np.array([image_size / width, image_size / height], np.float32)
    return ModelPrompt(coords * scale, labels)


def check_prompt(prompt: Prompt) -> PromptRows:
    """Check what needs neither a frame nor a model.

    Returns:
        Coordinates [N, 2], box corners first, and labels [N]; N is 0 for a mask.

    Raises:
        PromptError: For a prompt that is malformed or empty.
    """
    number = prompt.object_id
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
        raise PromptError(f"object id {number!r}; give an integer of at least 1")
    if number > MAX_OBJECT_ID:
        raise PromptError(f"an object id is too large; give an integer up to {MAX_OBJECT_ID}")
    if prompt.mask is not None:
        if prompt.points is not None or prompt.box is not None:
            raise PromptError("a mask prompt stands alone; give points and boxes in another call")
        return NO_POINTS.coords, NO_POINTS.labels
    (coords,), (labels,) = prompt_rows(prompt.points, prompt.labels, prompt.box)
    if not len(labels):
        raise PromptError("an empty prompt; give points, a box or a mask")
    is_corner = labels >= LABEL_BOX_TOP_LEFT
    if is_corner.any():
        x1, y1, x2, y2 = box = coords[is_corner].ravel()
        if not (x1 < x2 and y1 < y2):
            raise PromptError(
                f"box {_listed(box)} is empty; x1,y1 is the top left corner, x2,y2 the bottom right"
            )
    return coords, labels


def _listed(values: NDArray[np.float32]) -> str:
    return ",".join(f"{value:g}" for value in values)


def prompt_rows(
    points: ArrayLike | None,
    labels: ArrayLike | None,
    box: ArrayLike | None,
    *,
    allowed_labels: Mapping[int, str] = CLICK_LABELS,
    batched: bool = False,
) -> PromptRows:
    """Join points and boxes, box corners first, in the units in which they are given.

    Args:
        points: [N, 2] x, y, or [B, N, 2] for B objects.
        labels: [N] or [B, N]; all foreground if left out.
        box: [4] x1, y1, x2, y2, or [B, 4].
        allowed_labels: The labels that points may have, with their meanings.
        batched: Whether B may exceed 1.

    Returns:
        Coordinates [B, N, 2] and labels [B, N]; N is 0 if nothing is given.

    Raises:
        PromptError: For wrong shapes, labels that are not allowed, and values that are not finite.
    """
    parts: list[PromptRows] = []
    if box is not None:
        parts.append(_box_corners(box, batched=batched))
    if points is not None:
        parts.append(_labeled_points(points, labels, allowed_labels, batched=batched))
    elif labels is not None:
        raise PromptError("labels without points; give one point per label")
    if not parts:
        return np.zeros((1, 0, 2), np.float32), np.zeros((1, 0), np.int32)
    if len({len(kinds) for _, kinds in parts}) > 1:
        boxes, rows = (len(kinds) for _, kinds in parts)
        raise PromptError(f"{boxes} boxes and {rows} rows of points; give one row per box")
    coords, kinds = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
    return coords, kinds


def _labeled_points(
    points: ArrayLike, labels: ArrayLike | None, allowed: Mapping[int, str], *, batched: bool
) -> PromptRows:
    coords = finite_numbers(points, "points")
    if coords.shape == (0,):  # an empty list
        coords = coords.reshape(0, 2)
    given = np.ones(coords.shape[:-1]) if labels is None else finite_numbers(labels, "labels")
    rows = coords[None] if coords.ndim == 2 else coords
    kinds = given[None] if given.ndim == 1 else given
    if rows.ndim != 3 or rows.shape[2] != 2 or (len(rows) != 1 and not (batched and len(rows))):
        raise PromptError(
            f"points have shape {coords.shape}; give [N, 2]{' or [B, N, 2]' * batched} of x, y"
        )
    if kinds.shape != rows.shape[:2]:
        raise PromptError(
            f"labels have shape {given.shape} for points of shape {coords.shape}; give one label "
            "per point"
        )
    for label in np.unique(kinds):
        if label not in allowed:
            meanings = " or ".join(f"{known} for {name}" for known, name in allowed.items())
            raise PromptError(f"label {label:g}; give {meanings}")
    return rows, kinds.astype(np.int32)


def _box_corners(box: ArrayLike, *, batched: bool) -> PromptRows:
    """Return boxes as pairs of labeled corners, as SAM 2's prompt encoder takes them."""
    values = finite_numbers(box, "box")
    # As the original reshapes them: also [B, 1, 4] and corners, [2, 2] or [B, 2, 2].
    several = batched and values.size and (values.shape[-1:] == (4,) or values.shape[-2:] == (2, 2))
    if values.size != 4 and not several:
        raise PromptError(
            f"box has shape {values.shape}; give x1, y1, x2, y2 as [4]{' or [B, 4]' * batched}"
        )
    corners = values.reshape(-1, 2, 2)
    labels = np.array([LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT], np.int32)
    return corners, np.tile(labels, (len(corners), 1))


def _check_in_frame(
    coords: NDArray[np.float32], labels: NDArray[np.int32], frame_size: tuple[int, int]
) -> None:
    height, width = frame_size
    is_corner = labels >= LABEL_BOX_TOP_LEFT
    if is_corner.any():
        x1, y1, x2, y2 = box = coords[is_corner].ravel()
        if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
            raise PromptError(
                f"box {_listed(box)} is outside the frame; x ranges from 0 to {width}, y from 0 to "
                f"{height}"
            )
    for x, y in coords[~is_corner]:
        if not (0 <= x < width and 0 <= y < height):
            raise PromptError(
                f"point {x:g},{y:g} is outside the frame; x ranges from 0 to {width - 1}, y from 0 "
                f"to {height - 1}"
            )


def _model_mask(
    mask: ArrayLike, frame_size: tuple[int, int], image_size: int
) -> NDArray[np.float32]:
    mask = as_array(mask)
    shape = np.shape(mask)  # a file's is known before it is decoded
    if shape != frame_size:
        name = getattr(mask, "path", "a mask")
        raise PromptError(
            f"{name} of shape {shape} for a frame of {frame_size}; give [H, W] of the frame's size"
        )
    given = binary_mask(np.asarray(mask))
    if not given.any():
        raise PromptError("the mask is empty; mark the object with nonzero pixels")
    resized = resize_mask(given, image_size)
    if not resized.any():
        raise PromptError(
            f"the mask has {np.count_nonzero(given)} pixels and vanishes at the model's "
            f"{image_size} x {image_size}; give a larger mask or a point"
        )
    return resized


def binary_mask(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where a mask is not 0; raise PromptError if it holds more than two values."""
    if mask.dtype == np.bool_:
        return mask
    if mask.dtype.kind not in "iuf":
        raise PromptError(f"a mask of {mask.dtype}; give booleans, or 0 and 1")
    values = mask[mask != 0]
    one_value = not values.size or (values[0] > 0 and (values == values[0]).all())
    if not one_value or (mask.dtype.kind == "f" and values.size and values[0] != 1):
        raise PromptError(
            f"the mask has values from {mask.min():g} to {mask.max():g}; give booleans, such as "
            "logits > 0 or ids == 1"
        )
    return mask != 0


def resize_mask(mask: NDArray[np.bool_ | np.float32], image_size: int) -> NDArray[np.float32]:
    """Resize a mask [H, W] to the model's input [S, S] and binarize it to 0 and 1."""
    soft = antialiased(mask.astype(np.float32), (image_size, image_size))
    return (soft >= MASK_THRESHOLD).astype(np.float32)


def as_array(value: Any) -> Any:
    """Convert PyTorch tensors, also in lists, to numpy without importing PyTorch.

    Floating-point tensors become float32, since numpy has no bfloat16. Anything else is returned as
    it is.
    """
    if isinstance(value, list | tuple):
        return [as_array(part) for part in value]
    if isinstance(value, np.ndarray) or not hasattr(value, "is_floating_point"):
        return value
    tensor = value.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def finite_numbers(values: ArrayLike, name: str) -> NDArray[np.float32]:
    """Convert an argument to float32; raise PromptError, with its name, unless all are finite."""
    try:
        with np.errstate(over="ignore"):  # becomes infinite
            array = np.asarray(as_array(values), np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise PromptError(f"{name} {values!r} are not numbers; give numbers") from error
    invalid = array[~np.isfinite(array)]
    if invalid.size:
        raise PromptError(f"{name} holds {invalid[0]}, which is not finite; give finite numbers")
    return array


def checked_name(name: str) -> str:
    """Return an object's name without spaces around it; empty for none.

    Raises:
        PromptError: If it is too long, or has characters that cannot be shown.
    """
    name = name.strip()
    if len(name) > MAX_NAME_LENGTH:
        raise PromptError(
            f"name {name[:MAX_NAME_LENGTH]!r}... has {len(name)} characters; give at most "
            f"{MAX_NAME_LENGTH} characters"
        )
    if not name.isprintable():
        raise PromptError(
            f"name {name!r} has characters that cannot be shown; give one line of text"
        )
    return name


def prompts_by_object(prompts: Sequence[Prompt]) -> dict[int, Prompt]:
    """Index the prompts of a frame by object id; raise PromptError if an object has two."""
    found: dict[int, Prompt] = {}
    for prompt in prompts:
        if prompt.object_id in found:
            raise PromptError(
                f"object {prompt.object_id} is prompted twice on one frame; give its points and "
                "box in one prompt"
            )
        found[prompt.object_id] = prompt
    return found
