"""Mask files mean what their writers meant, or are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from sam2_edge import Prompt, PromptError, SourceError
from sam2_edge.runtime.prompts import model_prompt
from sam2_edge.runtime.sources.mask_file import MaskFile, read_id_mask, read_object_mask
from tests.helpers.pictures import png_of_size, saved

OBJECT = np.zeros((24, 32), np.bool_)
OBJECT[6:18, 8:24] = True
IDS = np.zeros((24, 32), np.uint8)
IDS[2:10, 2:12], IDS[12:22, 14:30] = 1, 2
SHADES = cv2.GaussianBlur(OBJECT.astype(np.uint8) * 255, (5, 1), 0)
COLORS = [255, 255, 255, 200, 30, 40, 30, 200, 40]
"""A palette with a light background."""


def written(folder: Path, image: Any, form: str = "PNG", **options: Any) -> Path:
    path = folder / "mask.png"
    path.write_bytes(saved(image, form, **options))
    return path


def indexed(ids: NDArray[np.uint8], palette: list[int] = COLORS) -> Image.Image:
    image = Image.fromarray(ids, "L").convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(palette)
    return image


def cut_out(alpha: NDArray[np.uint8], shade: int = 200) -> Image.Image:
    color = Image.new("RGB", alpha.shape[::-1], (shade, shade, 255))
    color.putalpha(Image.fromarray(alpha))
    return color


WHITE = OBJECT.astype(np.uint8) * 255
BINARY: dict[str, tuple[Any, str]] = {
    "1 bit": (Image.fromarray(OBJECT), "PNG"),
    "0 and 1": (OBJECT.astype(np.uint8), "PNG"),
    "0 and 255": (WHITE, "PNG"),
    "0 and 38": (OBJECT.astype(np.uint8) * 38, "PNG"),
    "soft": (SHADES, "PNG"),
    "soft with a palette": (Image.fromarray(SHADES).convert("P"), "PNG"),
    "white on black in color": (Image.fromarray(WHITE).convert("RGB"), "PNG"),
    "one dark color": (np.where(OBJECT[..., None], np.uint8([0, 0, 64]), np.uint8(0)), "PNG"),
    "opaque alpha": (Image.fromarray(WHITE).convert("RGBA"), "PNG"),
    "cut-out": (cut_out(WHITE), "PNG"),
    "cut-out of a dark object": (cut_out(WHITE, 0), "PNG"),
    "soft cut-out": (cut_out(SHADES), "PNG"),
    "gray cut-out": (cut_out(SHADES).convert("LA"), "PNG"),
    "light background, one index": (indexed(OBJECT.astype(np.uint8)), "PNG"),
    "16 bits": (OBJECT.astype(np.uint16) * 65_535, "PNG"),
    "JPEG": (WHITE, "JPEG"),
    "JPEG in color": (Image.fromarray(WHITE).convert("RGB"), "JPEG"),
    "WebP": (Image.fromarray(WHITE).convert("RGB"), "WEBP"),
    "GIF": (Image.fromarray(WHITE), "GIF"),
    "BMP": (WHITE, "BMP"),
    "CMYK": (Image.fromarray(WHITE).convert("RGB").convert("CMYK"), "TIFF"),
}


@pytest.mark.parametrize(("image", "form"), BINARY.values(), ids=BINARY.keys())
def test_the_object_of_a_binary_mask_is_read(tmp_path: Path, image: Any, form: str) -> None:
    mask = read_object_mask(written(tmp_path, image, form), 1)
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, OBJECT)


@pytest.mark.parametrize("form", ["palette", "gray", "16 bits", "with void"])
@pytest.mark.parametrize("number", [1, 2])
def test_the_objects_id_selects_its_pixels(tmp_path: Path, form: str, number: int) -> None:
    with_void = IDS.copy()
    with_void[0] = 255
    image = {
        "palette": indexed(IDS),
        "gray": IDS,
        "16 bits": IDS.astype(np.uint16),
        "with void": with_void,
    }[form]
    mask = read_object_mask(written(tmp_path, image), number)
    np.testing.assert_array_equal(mask, number == IDS)


def test_the_only_object_needs_no_id(tmp_path: Path) -> None:
    mask = read_object_mask(written(tmp_path, indexed(np.where(IDS == 2, IDS, 0))), 7)
    np.testing.assert_array_equal(mask, IDS == 2)


def test_a_transparent_color_is_the_background(tmp_path: Path) -> None:
    image = indexed(OBJECT.astype(np.uint8) ^ 1)  # index 1 is the background
    np.testing.assert_array_equal(
        read_object_mask(written(tmp_path, image, transparency=1), 1), OBJECT
    )
    color = Image.new("RGB", OBJECT.shape[::-1], (10, 200, 10))
    color.paste((250, 1, 1), (8, 6, 24, 18))
    path = written(tmp_path, color, transparency=(10, 200, 10))
    np.testing.assert_array_equal(read_object_mask(path, 1), OBJECT)


AMBIGUOUS: dict[str, tuple[Any, str, str]] = {
    "another id": (indexed(IDS), "PNG", "pixels of 1, 2, but none of object 3"),
    "void as an object": (np.where(IDS == 2, 255, IDS).astype(np.uint8), "PNG", "none of object 3"),
    "colors": (indexed(IDS).convert("RGB"), "PNG", "several colors"),
    "colors in a JPEG": (indexed(IDS).convert("RGB"), "JPEG", "several colors"),
    "float": (OBJECT.astype(np.float32), "TIFF", "floating-point pixels; .*logits > 0"),
    "negative": (Image.fromarray(OBJECT.astype(np.int32) - 1), "TIFF", "pixels from -1 to 0"),
    "large ids": (Image.fromarray(OBJECT * np.int32(10**6)), "TIFF", "0 to 1000000"),
    "many ids": (np.arange(768, dtype=np.uint16).reshape(24, 32) * 7 + 7, "PNG", "7, 14, .*none"),
    "text": (None, "PNG", "cannot be decoded"),
}


@pytest.mark.parametrize(("image", "form", "message"), AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_a_mask_that_could_mean_two_things_is_refused(
    tmp_path: Path, image: Any, form: str, message: str
) -> None:
    (tmp_path / "mask.png").write_bytes(b"text" if image is None else saved(image, form))
    with pytest.raises(PromptError, match=rf"mask\.png.*{message}"):
        read_object_mask(tmp_path / "mask.png", 3)


def test_a_palette_with_colors_and_transparency_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, indexed(IDS), transparency=0)
    with pytest.raises(PromptError, match="several colors and transparent pixels"):
        read_object_mask(path, 1)


def test_void_is_no_object(tmp_path: Path) -> None:
    path = written(tmp_path, np.where(IDS == 2, 255, IDS).astype(np.uint8))
    with pytest.raises(PromptError, match="pixels of 1, 255, but none of object 255 "):
        read_object_mask(path, 255)


def test_dark_values_of_a_jpeg_are_not_ids(tmp_path: Path) -> None:
    assert not read_object_mask(written(tmp_path, SHADES // 3, "JPEG"), 1).any()


def test_color_of_16_bits_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "mask.png"), np.full((4, 4, 3), 900, np.uint16))
    with pytest.raises(PromptError, match="16-bit color"):
        read_object_mask(tmp_path / "mask.png", 1)


def test_a_mask_of_another_size_is_refused_without_decoding_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(png_of_size(9_000, 9_000, bits=1, color=0))  # it has no pixels
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
        mask = MaskFile(path, 1)
    assert mask.shape == (9_000, 9_000)
    with pytest.raises(PromptError, match=r"mask\.png of shape \(9000, 9000\) for .*\(24, 32\)"):
        model_prompt(Prompt(1, mask=mask), (24, 32), 32)
    path.write_bytes(png_of_size(30_000, 30_000, bits=1, color=0))
    with pytest.raises(PromptError, match="make it smaller"):
        MaskFile(path, 1)


def test_the_shape_is_that_of_the_upright_mask(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for form in ("PNG", "JPEG", "TIFF"):
        mask = MaskFile(written(tmp_path, WHITE, form, exif=exif), 1)
        assert mask.shape == np.asarray(mask).shape == (32, 24)


def test_a_prompt_takes_a_mask_file(tmp_path: Path) -> None:
    mask = MaskFile(written(tmp_path, WHITE), 1)
    got = model_prompt(Prompt(1, mask=mask), OBJECT.shape, 32).mask
    np.testing.assert_array_equal(got, model_prompt(Prompt(1, mask=OBJECT), OBJECT.shape, 32).mask)


@pytest.mark.parametrize("kind", ["pipe", "folder", "missing", "half a pair"])
def test_what_is_no_file_is_a_prompt_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("\ud800.png" if kind == "half a pair" else "mask.png")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(PromptError, match=r"\.png (is a|does not exist|cannot be the name)"):
        MaskFile(path, 1)


ID_MASKS: dict[str, Any] = {
    "palette": indexed(IDS),
    "gray": IDS,
    "16 bits": IDS.astype(np.uint16),
    "gray as color": Image.fromarray(IDS).convert("RGB"),
    "opaque": Image.fromarray(IDS).convert("RGBA"),
}


@pytest.mark.parametrize("image", ID_MASKS.values(), ids=ID_MASKS.keys())
def test_ids_are_read(tmp_path: Path, image: Any) -> None:
    ids = read_id_mask(written(tmp_path, image))
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, IDS)


BAD_IDS: dict[str, tuple[Any, str, str]] = {
    "JPEG": (IDS, "JPEG", "JPEG, which changes ids"),
    "colors": (indexed(IDS).convert("RGB"), "PNG", "color image; give an indexed mask"),
    "cut-out": (cut_out(WHITE), "PNG", "transparent in part"),
    "large ids": (IDS.astype(np.uint16) * 200, "PNG", "object 400; give ids up to 254"),
    "float": (OBJECT.astype(np.float32), "TIFF", "floating-point"),
}


@pytest.mark.parametrize(("image", "form", "message"), BAD_IDS.values(), ids=BAD_IDS.keys())
def test_what_holds_no_ids_is_refused(tmp_path: Path, image: Any, form: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_id_mask(written(tmp_path, image, form))


def test_ids_of_another_size_are_refused_without_decoding_them(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(png_of_size(9_000, 8_000, bits=8, color=0))  # it has no pixels
    with pytest.raises(SourceError, match=r"is 9000 x 8000 pixels; give a mask of 32 x 24"):
        read_id_mask(path, (24, 32))
