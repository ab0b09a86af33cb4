"""A camera with every fault, for the soak."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from sam2_edge import SourceError
from sam2_edge.synthetic.camera import SyntheticCamera

SEED = 16
DIES, HANGS, RAISES, BLACK, EMPTY, BROKEN = 0.005, 0.002, 0.002, 0.02, 0.005, 0.01
"""Shares of reads on which the camera dies, hangs, raises an error, is black, empty or unusable."""

REFUSES = 0.2
"""Share of openings that fail."""

SIZE_PERIOD = 250
"""Frames between changes of size, of which every third stays as it is."""

HANG_S = 0.6

KEPT_FRAMES = 64
"""Captured frames whose truth is remembered."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is tracked, and by what.

    Attributes:
        model: nano or a bundle.
        threads: Of the model; None for all cores.
        pixels: Side of the frames.
        objects: Number of objects.
        frames: Length of the run.
    """

    model: str
    threads: int | None
    pixels: int
    objects: int
    frames: int

    @property
    def has_truth(self) -> bool:
        """Whether the model is a trained one, whose masks can be compared with the truth."""
        return self.model == "nano"


class FaultyCamera:
    """The synthetic camera with faults, opened again and again; `seed` chooses when they come."""

    ends = False

    def __init__(self, scene: Scene, seed: int = 1) -> None:
        self.opened = self.refused = self.raised = 0
        self._size = scene.pixels
        self._scene = SyntheticCamera(SEED, size=scene.pixels, objects=scene.objects, paced=False)
        self._shown: OrderedDict[int, tuple[Any, int]] = OrderedDict()
        self._rng = np.random.default_rng(seed)
        self._good = 0

    def open(self) -> FaultyCamera:
        """Continue the scene, or refuse."""
        if self.opened and self._rng.random() < REFUSES:
            self.refused += 1
            raise SourceError("the camera is busy")
        self.opened += 1
        return self

    def close(self) -> None:
        """Do nothing."""

    def read(self) -> Any:
        """Return a picture, or a fault."""
        draw = self._rng.random()
        for share, fault in (
            (DIES, lambda: None),
            (HANGS, lambda: time.sleep(HANG_S)),
            (RAISES, self._fail),
            (BLACK, lambda: np.zeros((self._size, self._size, 3), np.uint8)),
            (EMPTY, lambda: np.zeros((0, 0, 3), np.uint8)),
            (BROKEN, lambda: np.full((self._size, self._size, 3), np.nan, np.float32)),
        ):
            if draw < share:
                return fault()
            draw -= share
        position = SyntheticCamera.position(self._good)
        picture = self._scene.clip.frames[position]
        if (self._good // SIZE_PERIOD) % 3 == 2:
            picture = cv2.resize(picture, (self._size * 5 // 4, self._size * 25 // 32))
        self._shown[id(picture)] = (picture, position)  # which keeps it alive, and its id with it
        if len(self._shown) > KEPT_FRAMES:
            self._shown.popitem(last=False)
        self._good += 1
        return picture

    def truth(self, picture: Any, object_id: int) -> np.ndarray:
        """Return the true mask on a captured frame."""
        _, position = self._shown[id(picture)]
        mask = self._scene.clip.mask(position, object_id).astype(np.uint8)
        size = (picture.shape[1], picture.shape[0])
        return cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) > 0

    def _fail(self) -> None:
        self.raised += 1
        raise OSError(19, "No such device")
