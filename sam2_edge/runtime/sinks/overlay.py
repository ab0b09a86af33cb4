"""Draws results over frames."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sam2_edge.runtime.palette import overlay_color
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.results import FrameResult, ObjectResult

FILL = 0.5
"""Opacity of an object's color over the shades of its picture."""

EDGE_PX_AT = 540
"""The light line of an edge has one pixel per this many of the picture's smaller side."""

LABEL_HEIGHT = 0.025
"""Height of a label's letters, as a part of the picture's smaller side."""

MIN_LETTER_PX = 11
"""Letters are not smaller, so that they can be read."""

_CACHED_LABELS = 256

_Rectangle = tuple[int, int, int, int]


def draw(picture: Frame, result: FrameResult) -> Frame:
    """Return a copy of the picture with every present object filled, outlined and labeled.

    A label is the object's name, or its number if it has none or the font lacks its letters.
    """
    canvas = picture.copy()
    found = [(o, o.box) for o in result.objects if o.present]
    shown = [(entry, box) for entry, box in found if box is not None]
    main_parts = []
    for entry, box in shown:
        red, green, blue = overlay_color(entry.object_id)
        main_parts.append(_draw_region(canvas, entry.mask, box, (blue, green, red)))
    taken: list[_Rectangle] = []
    for (entry, _), box in zip(shown, main_parts, strict=True):
        label = _label(_text(entry, result), overlay_color(entry.object_id), _letter_px(canvas))
        taken.append(_paste(canvas, label, box, taken))
    return canvas


def draw_mask(canvas: Frame, mask: NDArray[np.bool_], color: tuple[int, int, int]) -> None:
    """Fill and outline a mask [H, W] in a BGR color, in place."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width:
        _draw_region(canvas, mask, (x, y, x + width, y + height), color)


def _draw_region(
    canvas: Frame, mask: NDArray[np.bool_], box: _Rectangle, color: tuple[int, int, int]
) -> _Rectangle:
    """Fill and outline what of a mask is in a box; return the box of its largest part."""
    x1, y1, x2, y2 = box
    inside = np.ascontiguousarray(mask[y1:y2, x1:x2]).view(np.uint8)
    region = canvas[y1:y2, x1:x2]
    shades = cv2.cvtColor(region, cv2.COLOR_BGR2GRAY)
    cv2.copyTo(cv2.applyColorMap(shades, _tint(color)), inside, region)
    # With holes: the handle of a cup has an inner edge.
    contours, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE, offset=(x1, y1))
    line = max(1, round(min(canvas.shape[:2]) / EDGE_PX_AT))
    if min(x2 - x1, y2 - y1) < 12 * line:
        line = 1  # the edge of a small object must not cover it
    # One of the two lines stands out from any background.
    cv2.drawContours(canvas, contours, -1, (0, 0, 0), 3 * line, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, (255, 255, 255), line, cv2.LINE_AA)
    x, y, width, height = max(map(cv2.boundingRect, contours), key=lambda r: r[2] * r[3])
    return x, y, x + width, y + height


@lru_cache(maxsize=_CACHED_LABELS)
def _tint(color: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return the color [256, 1, 3] that each shade of gray becomes under the fill.

    A picture's own colors would mix with the fill: blue on red would look like violet.
    """
    shades = np.arange(256, dtype=np.float32)[:, None, None]
    return ((1 - FILL) * shades + FILL * np.array(color, np.float32)).round().astype(np.uint8)


def _text(entry: ObjectResult, result: FrameResult) -> str:
    """Return an object's name without accents, or its number: the font has ASCII letters only."""
    name = unicodedata.normalize("NFKD", result.names.get(entry.object_id, ""))
    plain = "".join(c for c in name if not unicodedata.combining(c))
    return plain if plain and plain.isascii() else str(entry.object_id)


def _letter_px(canvas: Frame) -> int:
    return max(MIN_LETTER_PX, round(min(canvas.shape[:2]) * LABEL_HEIGHT))


@lru_cache(maxsize=_CACHED_LABELS)
def _label(text: str, color: tuple[int, int, int], letter_px: int) -> Frame:
    """Return a label [h, w, 3] BGR: text on the object's color, with a light and a dark edge."""
    font = ImageFont.load_default(1.3 * letter_px)
    border = max(1, round(letter_px / 12))
    _, top, _, bottom = font.getbbox("Ag")
    width, height = font.getlength(text), bottom - top
    pad = round(letter_px / 3) + 2 * border
    size = (round(width) + 2 * pad, round(height) + 2 * pad - 2 * border)
    image = Image.new("RGB", size, "black")
    brush = ImageDraw.Draw(image)
    for inset, paint in ((border, (255, 255, 255)), (2 * border, color)):
        corners = (inset, inset, size[0] - 1 - inset, size[1] - 1 - inset)
        brush.rectangle(corners, fill=paint)
    ink = "black" if _luminance(color) > 0.179 else "white"  # equal contrast with both
    brush.text((pad, pad - border - top), text, font=font, fill=ink)
    return cast("Frame", np.ascontiguousarray(np.asarray(image)[..., ::-1]))


def _luminance(color: tuple[int, int, int]) -> float:
    """Return the relative luminance of an RGB color, 0 to 1 (WCAG 2.2)."""
    encoded = np.array(color) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _paste(canvas: Frame, label: Frame, box: _Rectangle, taken: list[_Rectangle]) -> _Rectangle:
    """Put a label above its object, or below or in it, where no other label is; return where."""
    height, width = canvas.shape[:2]
    label = label[:height, :width]
    tall, wide = label.shape[:2]
    x = min(max((box[0] + box[2] - wide) // 2, 0), width - wide)
    gap = max(2, tall // 6)
    places = [
        (x, y, x + wide, y + tall)
        for y in (box[1] - gap - tall, box[3] + gap, box[1] + gap, box[3] - gap - tall)
        if 0 <= y <= height - tall
    ] or [(x, 0, x + wide, tall)]
    free = (p for p in places if not any(_overlap(p, other) for other in taken))
    place = next(free, places[0])
    canvas[place[1] : place[3], place[0] : place[2]] = label
    return place


def _overlap(a: _Rectangle, b: _Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
