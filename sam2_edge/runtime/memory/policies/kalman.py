"""A Kalman filter on an object's box, with constant velocity.

The state is that of SAMURAI (arXiv 2411.11922, section 4.1): center x, y, width, height and their
velocities. Noise follows the size of the box as in BoT-SORT (arXiv 2206.14651, section 3.1): the
deviations of a coordinate are shares of the width (x and width) or of the height (y and height).
With such noise the four coordinates are independent, so the filter is four filters of two numbers
each, computed at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.memory.policies.boxes import Box

PLACE_NOISE, SPEED_NOISE = 1 / 20, 1 / 160
"""Deviations, as shares of the box's side, of a measured or predicted coordinate and of a velocity
from frame to frame."""

FIRST_PLACE, FIRST_SPEED = 2.0, 10.0
"""Deviations at the first box, as multiples of those."""

MIN_SIDE_PX = 1.0
"""Noise is a share of at least this; a side of 0 would make the filter certain."""

Numbers = NDArray[np.float64]


class BoxFilter:
    """Predicts an object's box, in pixels.

    Once per frame, call `update` if there is a box, then `advance`.
    """

    def __init__(self, box: Box) -> None:
        """Begin at a box, at rest."""
        self._place = _center_and_size(box)
        self._speed: Numbers = np.zeros(4)
        sides = _sides(self._place)
        # Variances of place and speed and their covariance, [4] each.
        self._place_var = np.square(FIRST_PLACE * PLACE_NOISE * sides)
        self._speed_var = np.square(FIRST_SPEED * SPEED_NOISE * sides)
        self._shared_var: Numbers = np.zeros(4)

    @property
    def box(self) -> Box:
        """The box predicted for the frame that `advance` has reached."""
        center, half = self._place[:2], self._place[2:] / 2
        return np.concatenate([center - half, center + half])

    def advance(self) -> None:
        """Advance to the next frame."""
        sides = _sides(self._place)
        self._place = self._place + self._speed
        self._place_var = (
            self._place_var
            + 2 * self._shared_var
            + self._speed_var
            + np.square(PLACE_NOISE * sides)
        )
        self._shared_var = self._shared_var + self._speed_var
        self._speed_var = self._speed_var + np.square(SPEED_NOISE * sides)

    def update(self, box: Box) -> None:
        """Correct the prediction with the box found on this frame."""
        innovation = _center_and_size(box) - self._place
        total = self._place_var + np.square(PLACE_NOISE * _sides(self._place))
        place_gain, speed_gain = self._place_var / total, self._shared_var / total
        self._place = self._place + place_gain * innovation
        self._speed = self._speed + speed_gain * innovation
        self._speed_var = self._speed_var - speed_gain * self._shared_var
        self._shared_var = (1 - place_gain) * self._shared_var
        self._place_var = (1 - place_gain) * self._place_var


def _center_and_size(box: Box) -> Numbers:
    size = box[2:] - box[:2]
    return np.concatenate([box[:2] + size / 2, size])


def _sides(place: Numbers) -> Numbers:
    """Return the side [4] that each coordinate's noise is a share of: width, height, twice."""
    return np.tile(np.maximum(place[2:], MIN_SIDE_PX), 2)
