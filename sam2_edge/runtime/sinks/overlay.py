"""Draws results over frames."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.results import FrameResult

FILL = 0.45
"""Opacity of an object's color over its mask."""


@lru_cache(maxsize=1)
def palette() -> NDArray[np.uint8]:
    """Return the color table [256, 3] RGB of DAVIS and Pascal VOC.

    Bits 3k to 3k + 2 of an index become bit 7 - k of red, green and blue.
    """
    colors = np.zeros((256, 3), np.uint8)
    index = np.arange(256)
    for shift in range(8):
        for channel in range(3):
            bit = (index >> (3 * shift + channel)) & 1
            colors[:, channel] |= (bit << (7 - shift)).astype(np.uint8)
    return colors


def color_of(object_id: int) -> tuple[int, int, int]:
    """Return the BGR color of an object; ids above 255 wrap around to 1."""
    red, green, blue = palette()[(object_id - 1) % 255 + 1].tolist()
    return blue, green, red


def draw(picture: Frame, result: FrameResult) -> Frame:
    """Return a copy of the picture with every present object filled, outlined and labeled."""
    canvas = picture.copy()
    for entry in result.objects:
        if entry.present and entry.box is not None:
            draw_mask(canvas, entry.mask, color_of(entry.object_id))
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
