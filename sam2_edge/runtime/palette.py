"""Colors of objects drawn over pictures, on the page and in overlays.

Mask files have the color table of DAVIS instead (`sinks/masks.py`), whose first colors are dark.
"""

from __future__ import annotations

OVERLAY_COLORS: tuple[tuple[int, int, int], ...] = (
    (86, 180, 233),  # sky blue
    (213, 94, 0),  # vermilion
    (160, 80, 255),  # violet
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
    (204, 121, 167),  # reddish purple
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
)
"""RGB, in the order in which each is most unlike those before it.

The colors of Okabe and Ito (Color Universal Design, 2008, https://jfly.uni-koeln.de/color/) that
are not black, which people with any form of color blindness can tell apart, and a violet.
"""


def overlay_color(object_id: int) -> tuple[int, int, int]:
    """Return the RGB color of an object: 1 is the first, and the colors repeat after the last."""
    return OVERLAY_COLORS[(object_id - 1) % len(OVERLAY_COLORS)]
