"""The synthetic camera."""

from __future__ import annotations

import numpy as np

from sam2_edge.synthetic.camera import SCENE_FRAMES, SyntheticCamera


def test_the_scene_plays_back_and_forth() -> None:
    last = SCENE_FRAMES - 1
    shown = [SyntheticCamera.position(i) for i in range(2 * SCENE_FRAMES)]
    assert shown[: last + 2] == [*range(SCENE_FRAMES), last - 1]
    assert shown[2 * last - 1 : 2 * last + 2] == [1, 0, 1]


def test_the_camera_shows_the_frames_of_the_scene() -> None:
    camera = SyntheticCamera(3, size=64, objects=1, paced=False)
    for index in range(3):
        np.testing.assert_array_equal(camera.read(), camera.clip.frames[index])
