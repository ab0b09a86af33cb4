"""Frames of cameras are converted, or the reason why not is named."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from sam2_edge.runtime.streaming.frames import Unusable, usable_frame
from tests.helpers.cameras import picture

BGR = picture(3)
GRAY = BGR[..., 0]


def light_in_the_dark(row: int, column: int, size: tuple[int, int]) -> np.ndarray:
    image = np.zeros((*size, 3), np.uint8)
    image[row, column, 1] = 1
    return image


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (BGR, BGR),
        (GRAY, np.dstack([GRAY] * 3)),
        (GRAY[..., None], np.dstack([GRAY] * 3)),
        (np.dstack([BGR, GRAY]), BGR),
        (BGR[..., ::-1], BGR[..., ::-1]),
        (BGR[::2, ::3], BGR[::2, ::3]),
        (np.asfortranarray(BGR), BGR),
    ],
    ids=["bgr", "gray", "gray_1", "bgra", "reversed", "strided", "fortran"],
)
def test_what_can_be_converted_is(given: np.ndarray, expected: np.ndarray) -> None:
    given.flags.writeable = False
    found = usable_frame(given, uniform=False)
    assert isinstance(found, np.ndarray)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


def test_yuyv_is_converted() -> None:
    smooth = cv2.GaussianBlur(picture(1), (0, 0), 6)
    yuv = cv2.cvtColor(smooth, cv2.COLOR_BGR2YUV_YUY2)
    assert yuv.shape == (48, 64, 2)
    found = usable_frame(yuv, uniform=False)
    assert isinstance(found, np.ndarray)
    assert np.abs(found.astype(int) - smooth).mean() < 4


@pytest.mark.parametrize("size", [(480, 640), (24, 32), (60, 80), (5, 3)])
@pytest.mark.parametrize("at", [(0, 0), (3, 1), (-1, -1)])
def test_one_light_in_the_dark_is_a_picture(size: tuple[int, int], at: tuple[int, int]) -> None:
    assert isinstance(usable_frame(light_in_the_dark(*at, size), uniform=False), np.ndarray)


@pytest.mark.parametrize("value", [0, 16, 255])
@pytest.mark.parametrize("shape", [(480, 640, 3), (24, 32), (1, 1, 3), (17, 16, 4)])
def test_a_single_color_is_blank_unless_it_is_accepted(value: int, shape: tuple[int, ...]) -> None:
    frame = np.full(shape, value, np.uint8)
    found = usable_frame(frame, uniform=False)
    assert found == Unusable("blank", "the picture has a single color")
    assert isinstance(usable_frame(frame, uniform=True), np.ndarray)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (GRAY.astype(np.uint16), "[H, W] uint16"),
        (BGR.astype(np.uint16), "[H, W, 3] uint16"),
        (np.full((4, 4, 3), np.nan, np.float32), "[H, W, 3] float32"),
        (GRAY > 5, "[H, W] bool"),
        (BGR.astype(np.int64), "[H, W, 3] int64"),
        (np.zeros((4, 4, 5), np.uint8), "[H, W, 5] uint8"),
        (np.zeros((4, 5, 2), np.uint8), "[H, W, 2] uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), "[H, W, 4, 3] uint8"),
        (np.zeros(7, np.uint8), "[H] uint8"),
        (np.array(7, np.uint8), "[] uint8"),
        ([[1, 2], [3, 4]], "a list"),
    ],
)
def test_the_reason_names_what_came_and_the_remedy(given: Any, reason: str) -> None:
    found = usable_frame(given, uniform=False)
    assert isinstance(found, Unusable)
    assert found.kind == "unsupported"
    assert found.reason.startswith(f"a frame is {reason}; convert it to [H, W, 3] uint8")


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 7), (5, 0, 3), (5, 5, 0)])
def test_an_empty_frame_is_corrupt(shape: tuple[int, ...]) -> None:
    assert usable_frame(np.zeros(shape, np.uint8), uniform=True) == Unusable(
        "corrupt", "a frame is empty"
    )
