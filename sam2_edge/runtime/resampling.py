"""The antialiased bilinear filter of PyTorch, without PyTorch.

A triangle as wide as the reduction, renormalized at the border: `interpolate` with
`antialias=True`, which PyTorch took over from Pillow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def antialiased(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """One plane [H,W] float32 at another size (height, width), aspect not kept.

    Pillow computes planes of this kind in floating point. It rounds pictures of 8 bits after
    either direction, which PyTorch does not.
    """
    height, width = size
    if plane.shape == size:
        return plane
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)


def antialiased_picture(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A picture [H,W,C] uint8 at [size,size,C], each value rounded once, to the nearest level."""
    if picture.shape[:2] == (size, size):
        return picture
    planes = np.moveaxis(picture, -1, 0).astype(np.float32)
    resized = np.stack([antialiased(plane, (size, size)) for plane in planes], axis=-1)
    return np.rint(resized).astype(np.uint8)
