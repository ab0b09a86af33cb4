"""A camera on a synthetic scene, for trying the camera loop without a device."""

from __future__ import annotations

from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.sources.camera import Pace
from sam2_edge.synthetic.clip import clip

SCENE_FRAMES = 150
SIZE, OBJECTS, FPS = 480, 3, 30.0


class SyntheticCamera:
    """A five-second scene with objects that move, hide and leave, played back and forth.

    Args:
        seed: Seed of the scene.
        size: Side of the frames, pixels.
        objects: Number of objects.
        paced: Whether to deliver frames at `FPS` rather than as fast as they are read.

    Attributes:
        clip: The frames of the scene and their true masks.
    """

    ends = False

    def __init__(
        self, seed: int = 0, *, size: int = SIZE, objects: int = OBJECTS, paced: bool
    ) -> None:
        # Photographs would need scikit-image.
        self.clip = clip(
            seed,
            frames=SCENE_FRAMES,
            size=size,
            objects=objects,
            split="heldout",
            photographs=False,
        )
        self._pace = Pace(FPS if paced else None)
        self._next = 0

    @staticmethod
    def position(index: int) -> int:
        """Return which frame of the scene the camera shows as its frame `index`."""
        period = 2 * SCENE_FRAMES - 2
        return min(index % period, period - index % period)

    def read(self) -> Frame:
        """Return the next frame when it is due."""
        self._pace.wait()
        frame = self.clip.frames[self.position(self._next)]
        self._next += 1
        return frame

    def close(self) -> None:
        """Do nothing, since there is no device."""
