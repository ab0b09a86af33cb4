"""Decides in a camera's reading thread whether to prepare a frame for the model there."""

from __future__ import annotations

import time
from collections.abc import Callable

from sam2_edge.runtime.preprocess import Frame, PreparedFrame, TrackerInput

MAX_SHARE = 0.5
"""Share of the time between two frames that preparing may take: a reader that falls behind gets old
frames from the camera's driver, which queues them."""

_FORGET = 0.9
"""Factor by which the known time falls with each frame that is left as it is, until one is tried
again: the measured time may have been an exception."""


class FramePreparer:
    """Prepares the frames of one camera while that does not delay reading.

    Args:
        prepare: `VideoTracker.prepare`.
    """

    def __init__(self, prepare: Callable[[Frame], PreparedFrame]) -> None:
        self._prepare = prepare
        self._last_s = self._cost_s = 0.0
        self._shape: tuple[int, ...] = ()

    def __call__(self, picture: Frame) -> TrackerInput:
        """Return the frame prepared, or as it is if there is no time for that."""
        began_s = time.monotonic()
        since_s, self._last_s = began_s - self._last_s, began_s
        if picture.shape != self._shape:
            self._shape, self._cost_s = picture.shape, 0.0
        if self._cost_s > MAX_SHARE * since_s:
            self._cost_s *= _FORGET
            return picture
        prepared = self._prepare(picture)
        self._cost_s = time.monotonic() - began_s
        return prepared
