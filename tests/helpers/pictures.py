"""Image files as people and attackers have them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDE: NDArray[np.uint8] = np.arange(4 * 7 * 3, dtype=np.uint8).reshape(4, 7, 3) * 3
"""[4, 7, 3] RGB; every pixel differs."""


def saved(image: Image.Image | NDArray[np.uint8], form: str, **options: Any) -> bytes:
    """The content of an image file; `form` is Pillow's name of the format."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def jpeg_with_orientation(bgr: NDArray[np.uint8], orientation: int) -> bytes:
    """A photograph as a camera writes it that was held sideways."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), "JPEG", exif=exif)


def png_of_size(width: int, height: int, *, bits: int = 8, color: int = 2) -> bytes:
    """A PNG that declares a size and has hardly any pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for chunk in (header, b"IDAT" + zlib.compress(b""), b"IEND"):
        content += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return content
