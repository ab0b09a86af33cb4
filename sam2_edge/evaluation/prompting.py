"""Prompts made from true masks."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.prompts import Prompt
from sam2_edge.synthetic import center_click

PromptKind = Literal["click", "box", "mask"]


def prompt_from_mask(object_id: int, mask: NDArray[np.bool_], kind: PromptKind) -> Prompt:
    """Make a prompt for an object from its mask.

    Args:
        object_id: Id of the object.
        mask: [H, W], not empty.
        kind: "click" for the pixel farthest from the mask's edge, "box" for the tight bounding box
            with an exclusive lower right corner, "mask" for the mask itself.
    """
    if kind == "mask":
        return Prompt(object_id, mask=mask)
    if kind == "click":
        return Prompt(object_id, points=[center_click(mask)])
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return Prompt(object_id, box=(x, y, x + width, y + height))
