"""Mask files: which pixels are an object, or the object of every pixel.

A mask is written in many ways, and the file does not say which. docs/guides/images.md lists how
each is read; what could mean two things is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_edge.errors import PromptError, Sam2EdgeError, SourceError
from sam2_edge.runtime.sources.image_file import (
    has_deep_channels,
    opened_image,
    upright,
    upright_size,
)

VOID = 255
"""Pixel value of no object in indexed masks (`_VOID_LABEL` in DAVIS and LVOS)."""

SOFT_THRESHOLD = 128
"""A gray, transparent or lossy pixel belongs to the object from here on."""

MAX_ID = 65_535

_LOSSY = ("JPEG", "MPO", "WEBP")
_SHOWN = 5
"""Number of pixel values that an error lists."""


class MaskFile:
    """An object's mask in a file, decoded when numpy asks for it: [H, W] bool.

    Attributes:
        path: The file.
        shape: Height, width, pixels, from the file's header.

    Raises:
        PromptError: If it is not an image, or pixels cannot be told apart (when decoded).
    """

    def __init__(self, path: str | Path, object_id: int) -> None:
        self.path, self._object_id = path, object_id
        with opened_image(path, error=PromptError) as image:
            self.shape = upright_size(image)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: FBT001 - numpy's protocol
        """Decode the mask."""
        mask = read_object_mask(self.path, self._object_id)
        if mask.shape != self.shape:
            raise PromptError(f"{self.path} has changed its size to {mask.shape}; track again")
        return mask if dtype is None else mask.astype(dtype)


def read_object_mask(path: str | Path, object_id: int) -> NDArray[np.bool_]:
    """Read the mask of one object, [H, W].

    Raises:
        PromptError: If it is not an image, or it is unclear which pixels are the object.
    """
    with opened_image(path, error=PromptError) as image:
        lossy = image.format in _LOSSY or image.info.get("compression") == "jpeg"
        values, indexed = _object_values(path, image)
    if lossy:
        return values >= SOFT_THRESHOLD
    present = np.flatnonzero(np.bincount(values.ravel())[1:]) + 1
    if present.size <= 1:
        return values != 0
    if not indexed and ((present >= SOFT_THRESHOLD) & (present < VOID)).any():
        return values >= SOFT_THRESHOLD
    if object_id in present and object_id != VOID:
        return values == object_id
    shown = ", ".join(map(str, present[:_SHOWN])) + ", ..." * (present.size > _SHOWN)
    raise PromptError(
        f"{path} has pixels of {shown}, but none of object {object_id} (255 is void); give the "
        "object one of these numbers, or a mask with one value besides 0"
    )


def read_id_mask(path: str | Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Read the object ids of an indexed or gray mask, [H, W]; 0 is the background.

    Args:
        path: The file.
        size: Height, width that it must have, if known; compared before it is decoded.

    Raises:
        SourceError: If it is not an image, has another size, its colors are no ids, or an id is
            above 255.
    """
    with opened_image(path) as image:
        height, width = upright_size(image)
        if size is not None and (height, width) != size:
            raise SourceError(
                f"{path} is {width} x {height} pixels; give a mask of {size[1]} x {size[0]}, the "
                "size of its frame"
            )
        if image.format in _LOSSY:
            raise SourceError(f"{path} is a {image.format}, which changes ids; give a PNG")
        if _has_alpha(image) and _varies(_alpha(image)):
            raise SourceError(f"{path} is transparent in part; give an indexed mask")
        values = _integers(path, image, SourceError)
        if values is None:
            rgb = np.asarray(upright(image).convert("RGB"))
            if _spread(rgb).any():
                raise SourceError(f"{path} is a color image; give an indexed mask")
            values = rgb[..., 0]
    if values.max() > VOID:
        raise SourceError(f"{path} has object {values.max()}; give ids up to 254 in 8 bits")
    return values.astype(np.uint8)


def _object_values(path: str | Path, image: Image.Image) -> tuple[NDArray[Any], bool]:
    """Return values [H, W], 0 for no object, and whether they are ids rather than shades."""
    if _has_alpha(image):
        alpha = _alpha(image)
        if _varies(alpha):
            if image.mode == "P" and np.unique(np.asarray(upright(image))[alpha > 0]).size > 1:
                raise PromptError(
                    f"{path} has a palette with several colors and transparent pixels; save a "
                    "cut-out with full color, or an indexed mask without transparency"
                )
            return alpha, False
    values = _integers(path, image, PromptError)
    if values is not None:
        return values, image.mode.startswith("I") or (image.mode == "P" and not _is_gray(image))
    rgb = np.asarray(upright(image).convert("RGB"))
    if not _spread(rgb).any():
        return rgb[..., 0], False
    if image.format in _LOSSY:
        if _spread(rgb).max() >= SOFT_THRESHOLD // 2:
            raise _colored(path)
        return rgb.max(axis=2), False
    colors = rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    if np.unique(colors[colors > 0]).size > 1:
        raise _colored(path)
    return (colors > 0).astype(np.uint8), False


def _integers(
    path: str | Path, image: Image.Image, error: type[Sam2EdgeError]
) -> NDArray[Any] | None:
    """Return palette indices, shades or ids, [H, W]; None for an image in color."""
    if image.mode == "F" or (has_deep_channels(image) and not image.mode.startswith("I")):
        raise error(
            f"{path} has {'floating-point' if image.mode == 'F' else '16-bit color'} pixels; give "
            "a mask of whole numbers, such as logits > 0"
        )
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        return None
    values = np.asarray(upright(image))
    if values.dtype in (np.bool_, np.uint8):
        return values.astype(np.uint8)
    if values.min() < 0 or values.max() > MAX_ID:
        raise error(
            f"{path} has pixels from {values.min()} to {values.max()}; give ids from 0 to {MAX_ID}"
        )
    return values.astype(np.uint16)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def _alpha(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(upright(image).convert("RGBA").getchannel("A"))


def _varies(values: NDArray[np.uint8]) -> bool:
    return bool((values != values.flat[0]).any())


def _is_gray(image: Image.Image) -> bool:
    """Return whether entry i of the palette is gray of value i, so that indices are shades."""
    entries = np.array(cast("Any", image.getpalette("RGB"))).reshape(-1, 3)
    return bool((entries == np.arange(len(entries))[:, None]).all())


def _spread(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the difference between the channels, 0 where a pixel is gray."""
    return rgb.max(axis=2) - rgb.min(axis=2)


def _colored(path: str | Path) -> PromptError:
    return PromptError(
        f"{path} has several colors, so that it is unclear what the object is; give a mask in "
        "black and white, or an indexed PNG"
    )
