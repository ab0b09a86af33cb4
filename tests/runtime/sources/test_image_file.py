"""Image files are read by one set of rules, and what they cannot mean is refused."""

from __future__ import annotations

import itertools
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sam2_edge import SourceError
from sam2_edge.runtime.sources.image_file import MAX_PIXELS, read_image
from tests.helpers.pictures import WIDE, jpeg_with_orientation, png_of_size, saved

SMOOTH = cv2.resize(
    np.random.default_rng(3).integers(0, 256, (4, 6, 3), np.uint8), (60, 40)
)  # survives JPEG


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp", ".JPEG"])
def test_pixels_are_those_of_opencv(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    cv2.imwrite(str(path), SMOOTH)
    picture = read_image(path)
    np.testing.assert_array_equal(picture, cv2.imread(str(path), cv2.IMREAD_COLOR))
    assert picture.flags.c_contiguous


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9.png"), "10:00.png", "wrong.jpg"])
def test_the_content_counts_whatever_the_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(saved(WIDE, "PNG"))
    np.testing.assert_array_equal(read_image(tmp_path / name), WIDE[..., ::-1])


GRAY = Image.fromarray(np.full((5, 6), 90, np.uint8))


@pytest.mark.parametrize(
    ("image", "form"),
    [
        (GRAY, "PNG"),
        (GRAY.convert("P"), "PNG"),
        (GRAY.convert("RGB").quantize(4), "GIF"),
        (GRAY.convert("LA"), "PNG"),
        (Image.merge("RGBA", [GRAY, GRAY, GRAY, GRAY.point(lambda _: 0)]), "PNG"),
        (GRAY.convert("RGB").convert("CMYK"), "TIFF"),
        (GRAY.convert("RGB").convert("CMYK"), "JPEG"),
    ],
)
def test_every_kind_of_8_bits_becomes_bgr(tmp_path: Path, image: Image.Image, form: str) -> None:
    (tmp_path / "image").write_bytes(saved(image, form))
    picture = read_image(tmp_path / "image")
    assert (picture.shape, picture.dtype) == ((5, 6, 3), np.uint8)
    assert np.abs(picture.astype(int) - 90).max() <= 1


def test_black_and_white_become_0_and_255(tmp_path: Path) -> None:
    bits = np.eye(5, dtype=np.bool_)
    (tmp_path / "bits.png").write_bytes(saved(Image.fromarray(bits), "PNG"))
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png")[..., 1], bits * 255)


@pytest.mark.parametrize("orientation", range(10))
def test_the_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg_with_orientation(SMOOTH, orientation))
    upright = cv2.imread(str(tmp_path / "photo.jpg"), cv2.IMREAD_COLOR)  # OpenCV turns it too
    np.testing.assert_array_equal(read_image(tmp_path / "photo.jpg"), upright)


@pytest.mark.parametrize("form", ["TIFF", "PNG", "WEBP"])
def test_the_orientation_is_applied_once_in_every_format(tmp_path: Path, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(WIDE, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    (tmp_path / "photo").write_bytes(content)
    np.testing.assert_array_equal(read_image(tmp_path / "photo"), np.rot90(WIDE[..., ::-1], -1))


def test_a_damaged_exif_block_does_not_matter(tmp_path: Path) -> None:
    content = jpeg_with_orientation(SMOOTH, 6).replace(b"Exif\0\0MM", b"Exif\0\0XX")
    (tmp_path / "photo.jpg").write_bytes(content.replace(b"Exif\0\0II", b"Exif\0\0XX"))
    assert read_image(tmp_path / "photo.jpg").shape == SMOOTH.shape


@pytest.mark.parametrize(
    ("suffix", "channels"),
    [*itertools.product([".png", ".tif"], [1, 3, 4]), (".pgm", 1), (".ppm", 3)],
)
def test_more_than_8_bits_are_refused(tmp_path: Path, suffix: str, channels: int) -> None:
    pixels = np.full((5, 5, channels), 1000, np.uint16)
    cv2.imwrite(str(tmp_path / f"deep{suffix}"), pixels)
    with pytest.raises(SourceError, match="more than 8 bits per channel; convert it to 8 bits"):
        read_image(tmp_path / f"deep{suffix}")


def test_a_ppm_of_few_shades_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6\n1 2\n15\n" + bytes([15, 0, 0, 0, 15, 0]))
    assert read_image(tmp_path / "a.ppm").tolist() == [[[0, 0, 255]], [[0, 255, 0]]]


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((5, 5), np.float32)).save(tmp_path / "depth.tif")
    with pytest.raises(SourceError, match="more than 8 bits"):
        read_image(tmp_path / "depth.tif")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP"])
def test_a_truncated_file_is_refused(tmp_path: Path, form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    content = saved(Image.fromarray(noise), form)
    for share in (0.1, 0.5, 0.95):
        (tmp_path / "half").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(SourceError, match="half cannot be decoded as an image"):
            read_image(tmp_path / "half")


def test_a_tiff_with_fewer_strips_than_rows_is_refused(tmp_path: Path) -> None:
    content = saved(WIDE, "TIFF")
    height = struct.pack("<HHII", 257, 4, 1, 4)  # the tag, 4 rows
    short = struct.pack("<HHIHH", 257, 3, 1, 4, 0)
    taller = struct.pack("<HHII", 257, 4, 1, 9_000)
    assert (height in content) != (short in content)
    (tmp_path / "a.tif").write_bytes(content.replace(height, taller).replace(short, taller))
    with pytest.raises(SourceError, match="parts are missing"):
        read_image(tmp_path / "a.tif")


def test_a_png_whose_checksum_differs_is_refused(tmp_path: Path) -> None:
    content = bytearray(saved(WIDE, "PNG"))
    content[content.index(b"IEND") - 5] ^= 1  # the last byte of the checksum before
    (tmp_path / "flipped.png").write_bytes(content)
    with pytest.raises(SourceError, match="cannot be decoded"):
        read_image(tmp_path / "flipped.png")


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG broken", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(SourceError, match=r"image\.png cannot be decoded as an image"):
        read_image(tmp_path / "image.png")


@pytest.mark.parametrize("side", [16_384, 100_000, 2**31 - 1])
def test_a_huge_image_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    assert side**2 > MAX_PIXELS
    (tmp_path / "huge.png").write_bytes(png_of_size(side, side))
    with pytest.raises(SourceError, match=r"huge\.png .*make it smaller"):
        read_image(tmp_path / "huge.png")


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_and_stacks_are_refused(tmp_path: Path, form: str) -> None:
    other = Image.fromarray(255 - WIDE)
    content = saved(WIDE, form, save_all=True, append_images=[other])
    (tmp_path / "several").write_bytes(content)
    with pytest.raises(SourceError, match="several images; save each in a file of its own"):
        read_image(tmp_path / "several")


def test_smaller_versions_of_the_same_image_do_not_count(tmp_path: Path) -> None:
    small = Image.fromarray(WIDE[::2, ::2].copy())
    (tmp_path / "map.tif").write_bytes(saved(WIDE, "TIFF", save_all=True, append_images=[small]))
    (tmp_path / "phone.jpg").write_bytes(saved(WIDE, "MPO", save_all=True, append_images=[small]))
    np.testing.assert_array_equal(read_image(tmp_path / "map.tif"), WIDE[..., ::-1])
    assert read_image(tmp_path / "phone.jpg").shape == WIDE.shape


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(SourceError, match="is a named pipe; give a file"):
        read_image(tmp_path / "pipe.png")


def test_a_missing_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.png does not exist"):
        read_image(tmp_path / "none.png")
