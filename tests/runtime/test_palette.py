"""Tests of sam2_edge/runtime/palette.py."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import rgb2lab

from sam2_edge.runtime.palette import OVERLAY_COLORS, overlay_color

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency" (2009), severity 1.0, for linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def seen(vision: str) -> NDArray[np.float64]:
    """Return the colors as CIE L*a*b* [N, 3] as they look with this kind of vision."""
    encoded = np.array(OVERLAY_COLORS) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    linear = (linear @ VISION[vision].T).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(rgb2lab(encoded[None]))[0]


@pytest.mark.parametrize("vision", VISION)
def test_every_two_colors_differ_clearly_for_every_kind_of_vision(vision: str) -> None:
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen(vision), 2)]

    assert min(distances) > 15  # a difference of 2.3 can just be noticed


@pytest.mark.parametrize("vision", VISION)
def test_the_first_four_objects_differ_most(vision: str) -> None:
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen(vision)[:4], 2)]

    assert min(distances) > 30


def test_no_color_is_black_gray_or_dark() -> None:
    lightness, green_red, blue_yellow = seen("normal").T

    assert len(OVERLAY_COLORS) >= 8
    assert lightness.min() > 45  # of 100
    assert np.hypot(green_red, blue_yellow).min() > 35


def test_colors_repeat_after_the_last() -> None:
    count = len(OVERLAY_COLORS)

    assert [overlay_color(i) for i in range(1, count + 1)] == list(OVERLAY_COLORS)
    assert overlay_color(count + 1) == overlay_color(1)
    assert len({overlay_color(i) for i in range(250, 256)}) == 6
