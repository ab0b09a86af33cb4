"""PyTorch's antialiased bilinear resampling, without PyTorch.

`interpolate` with `antialias=True` uses Pillow's filter: a triangle whose width scales with the
reduction, renormalized at the border.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def antialiased(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a plane [H, W] float32 to (height, width), ignoring the aspect ratio.

    Pillow resizes float planes in floating point. It would round an 8-bit image after each pass,
    which PyTorch does not do.
    """
    height, width = size
    if plane.shape == size:
        return plane
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)


def antialiased_picture(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize an image [H, W, C] uint8 to [size, size, C], rounding every value only once."""
    if picture.shape[:2] == (size, size):
        return picture
    planes = np.moveaxis(picture, -1, 0).astype(np.float32)
    resized = np.stack([antialiased(plane, (size, size)) for plane in planes], axis=-1)
    return np.rint(resized).astype(np.uint8)
