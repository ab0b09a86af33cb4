"""A constant-velocity Kalman filter on an object's box.

The state is that of SAMURAI (arXiv 2411.11922, section 4.1): center x, y, width, height and their
velocities. As in BoT-SORT (arXiv 2206.14651, section 3.1), standard deviations are proportional to
the width (for x and width) or the height (for y and height) of the box. The four coordinates are
then independent, so this is four vectorized filters with two states each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.memory.policies.boxes import Box

PLACE_NOISE, SPEED_NOISE = 1 / 20, 1 / 160
"""Standard deviations of a coordinate (measured or predicted) and of the change of a velocity per
frame, as shares of the box's side."""

FIRST_PLACE, FIRST_SPEED = 2.0, 10.0
"""Initial standard deviations, as multiples of those."""

MIN_SIDE_PX = 1.0
"""Minimum side for the noise; a side of 0 would make the filter overconfident."""

Numbers = NDArray[np.float64]


class BoxFilter:
    """Predicts an object's box, in pixels.

    On every frame, call `update` if there is a box, then `advance`.
    """

    def __init__(self, box: Box) -> None:
        self._place = _center_and_size(box)
        self._speed: Numbers = np.zeros(4)
        sides = _sides(self._place)
        # Variances of place and speed, and their covariance, [4] each.
        self._place_var = np.square(FIRST_PLACE * PLACE_NOISE * sides)
        self._speed_var = np.square(FIRST_SPEED * SPEED_NOISE * sides)
        self._shared_var: Numbers = np.zeros(4)

    @property
    def box(self) -> Box:
        """The box predicted for the frame reached by `advance`."""
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
        """Correct the prediction with the box measured on this frame."""
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
    """Return the side [4] that each coordinate's noise scales with: width, height, twice."""
    return np.tile(np.maximum(place[2:], MIN_SIDE_PX), 2)
