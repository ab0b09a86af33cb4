"""The one reader of image files; docs/guides/images.md lists its rules.

The kind of file, the header and the size are checked before pixels are decoded.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from sam2_edge.errors import Sam2EdgeError, SourceError
from sam2_edge.runtime.paths import open_file
from sam2_edge.runtime.preprocess import Frame

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are read; others, such as EPS, would start other programs."""

MAX_PIXELS = 178_956_970
"""Twice Pillow's `MAX_IMAGE_PIXELS`: larger images are taken for an attack on memory."""

MAX_BYTES = 2**30

_TIFF_WIDTH_HEIGHT = (256, 257)
_TIFF_BITS_PER_SAMPLE = 258
_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its EXIF orientation."""

_SIDEWAYS = (5, 6, 7, 8)


def read_image(path: str | Path) -> Frame:
    """Read an image file as [H, W, 3] uint8 BGR, upright.

    Raises:
        SourceError: If it is not an image, is damaged, has more than 8 bits per channel or too many
            pixels, or contains several images.
    """
    with opened_image(path) as image:
        return _as_frame(image, path)


def decode_image(content: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Frame:
    """Decode an image in memory; see `read_image`.

    Args:
        content: The bytes of an image file.
        name: What errors call it.
        max_pixels: Largest size; larger images are not decoded.

    Raises:
        SourceError: As for a file, or if it has more than `max_pixels`.
    """
    with _opened(name, io.BytesIO(content), SourceError, max_pixels) as image:
        return _as_frame(image, name)


def _as_frame(image: Image.Image, name: str | Path) -> Frame:
    if has_deep_channels(image):
        raise SourceError(
            f"{name} has more than 8 bits per channel; convert it to 8 bits, mapping the value "
            "range that shows what you want to segment"
        )
    rgb = np.asarray(upright(image).convert("RGB"))
    return cast("Frame", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))


@contextmanager
def opened_image(
    path: str | Path, *, error: type[Sam2EdgeError] = SourceError
) -> Iterator[Image.Image]:
    """Open an image whose pixels are not decoded yet; what Pillow raises becomes `error`.

    Raises:
        Sam2EdgeError: Of the class `error`; see `read_image`.
    """
    with open_file(path, error=error) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise error(f"{path} is larger than {MAX_BYTES >> 20} MiB; make it smaller")
        with _opened(path, file, error, MAX_PIXELS) as image:
            yield image


@contextmanager
def _opened(
    name: str | Path, file: BinaryIO, error: type[Sam2EdgeError], max_pixels: int
) -> Iterator[Image.Image]:
    try:
        _verify(name, file, error, max_pixels)
        with Image.open(file, formats=FORMATS) as image:
            yield image
    except Sam2EdgeError:
        raise
    except Image.DecompressionBombError as reason:
        raise error(f"{name} has more than {MAX_PIXELS:,} pixels; make it smaller") from reason
    except UnidentifiedImageError as reason:
        raise error(
            f"{name} cannot be decoded as an image: it is damaged, or none of "
            f"{', '.join(FORMATS)}; repair it, or convert it to PNG or JPEG"
        ) from reason
    except Exception as reason:  # Pillow raises a dozen kinds for damaged data
        raise error(
            f"{name} cannot be decoded as an image ({reason}); remove or repair it, or convert "
            "it to PNG or JPEG"
        ) from reason


def upright(image: Image.Image) -> Image.Image:
    """Decode an image and turn it as its EXIF orientation says."""
    image.load()  # before the orientation is read, since Pillow turns TIFF by itself
    orientation = _orientation(image)
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the height and width that `upright` gives, without decoding the image."""
    width, height = image.size
    if image.format == "TIFF":  # Pillow may have swapped them
        width, height = (cast("Any", image).tag_v2[tag] for tag in _TIFF_WIDTH_HEIGHT)
    return (width, height) if _orientation(image) in _SIDEWAYS else (height, width)


def _orientation(image: Image.Image) -> int | None:
    try:
        # The method of PngImageFile would decode the image.
        return Image.Image.getexif(image).get(_EXIF_ORIENTATION)
    except Exception:  # noqa: BLE001 - a damaged EXIF block, of many kinds; the pixels are sound
        return None


def has_deep_channels(image: Image.Image) -> bool:
    """Return whether a channel has more than 8 bits, before the image is decoded.

    Pillow opens color images of 16 bits as if they had 8.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return True
    if image.format == "TIFF":
        return max(cast("Any", image).tag_v2.get(_TIFF_BITS_PER_SAMPLE, (8,))) > 8
    if image.format == "PPM":
        _, *largest = cast("Any", image).tile[0].args or ("",)
        return any(isinstance(value, int) and value > 255 for value in largest)
    return image.format == "PNG" and ";16" in str(cast("Any", image).tile)


def _verify(path: str | Path, file: BinaryIO, error: type[Sam2EdgeError], max_pixels: int) -> None:
    """Check an image's size and number, and the checksums that its format has; rewind the file."""
    with Image.open(file, formats=FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise error(
                f"{path} is {width} x {height}; make it smaller: up to {max_pixels:,} pixels are "
                "read"
            )
        if image.format == "TIFF" and _covered_pixels(image) < width * height:
            raise error(f"{path} cannot be decoded as an image: parts are missing; copy it again")
        if _contains_several(image):
            raise error(
                f"{path} contains several images; save each in a file of its own (an animation: "
                "ffmpeg -i FILE FOLDER/%05d.png)"
            )
    file.seek(0)
    with Image.open(file, formats=FORMATS) as image:
        image.verify()  # unusable afterwards
    file.seek(0)


def _covered_pixels(image: Image.Image) -> int:
    """Return the area of an image's strips or tiles; Pillow leaves the rest black."""
    boxes = (tile[1] for tile in cast("Any", image).tile)
    return sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)


def _contains_several(image: Image.Image) -> bool:
    """Return whether it is an animation or a stack; smaller versions of the image do not count."""
    if not getattr(image, "is_animated", False) or image.format == "MPO":
        return False
    if image.format != "TIFF":
        return True
    size = image.size
    image.seek(1)
    return image.size == size
