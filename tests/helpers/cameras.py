"""Cameras that follow a script."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from sam2_edge import SourceError
from tests.helpers.clock import WAIT_S


def picture(value: int = 0, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """A picture that is not blank; its first pixel is `value`."""
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    image[0, 0] = value
    return image


class ScriptedCamera:
    """A camera that follows a script: pictures are returned, functions are called."""

    def __init__(self, script: Iterable[object], *, ends: bool = False) -> None:
        self.ends = ends
        self.closed = threading.Event()
        self._script = iter(script)

    def read(self) -> NDArray[np.uint8] | None:
        step = next(self._script, None)
        return step() if callable(step) else step  # type: ignore[return-value]

    def close(self) -> None:
        self.closed.set()


class Hang:
    """A step of a script: hangs until it is released, then returns what it was given."""

    def __init__(self, then: NDArray[np.uint8] | None = None) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()
        self._then = then

    def __call__(self) -> NDArray[np.uint8] | None:
        self.entered.set()
        self.released.wait(WAIT_S)
        return self._then


def opener(*cameras: ScriptedCamera | SourceError) -> Callable[[], ScriptedCamera]:
    """Return a function that opens the cameras in turn, and then the last one repeatedly."""
    left = list(cameras)

    def open_next() -> ScriptedCamera:
        camera = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(camera, SourceError):
            raise camera
        return camera

    return open_next
