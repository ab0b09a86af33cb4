"""Draws results over frames."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.palette import overlay_color
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.results import FrameResult

FILL = 0.45
"""Opacity of an object's color over its mask."""


def draw(picture: Frame, result: FrameResult) -> Frame:
    """Return a copy of the picture with every present object filled, outlined and labeled."""
    canvas = picture.copy()
    for entry in result.objects:
        if entry.present and entry.box is not None:
            draw_mask(canvas, entry.mask, overlay_color(entry.object_id)[::-1])
            _label(canvas, str(entry.object_id), entry.box[:2], _line_width(canvas))
    return canvas


def draw_mask(canvas: Frame, mask: NDArray[np.bool_], color: tuple[int, int, int]) -> None:
    """Fill and outline a mask [H, W] in a BGR color, in place."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    inside = mask[y : y + height, x : x + width]
    region = canvas[y : y + height, x : x + width]
    tint = np.array(color, np.float32)
    region[inside] = ((1 - FILL) * region[inside] + FILL * tint).astype(np.uint8)
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    cv2.drawContours(canvas, contours, -1, color, _line_width(canvas), cv2.LINE_AA)


def _line_width(canvas: Frame) -> int:
    return max(1, round(min(canvas.shape[:2]) / 360))


def _label(canvas: Frame, text: str, corner: tuple[int, int], line: int) -> None:
    scale = 0.5 * line + 0.1
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, line)
    x = min(corner[0], canvas.shape[1] - width)
    y = max(corner[1] - line, height)
    for gray, thickness in ((0, 3 * line), (255, line)):
        color, font = (gray, gray, gray), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(canvas, text, (x, y), font, scale, color, thickness, cv2.LINE_AA)
