"""Overlays can be seen on any background, and show whose mask it is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sam2_edge import FrameResult, ObjectResult
from sam2_edge.runtime.palette import OVERLAY_COLORS, overlay_color
from sam2_edge.runtime.sinks.overlay import draw, draw_mask

SIZE = (240, 320)
FULL_HD = (1080, 1920)


def scene(
    color: tuple[int, int, int], size: tuple[int, int] = SIZE
) -> tuple[NDArray[np.uint8], FrameResult]:
    """A picture of one RGB color, and object 1 in its middle."""
    picture = np.full((*size, 3), color[::-1], np.uint8)
    return picture, results([(1, box_mask(size, 0.25, 0.75))], size)


def box_mask(size: tuple[int, int], start: float, stop: float) -> NDArray[np.bool_]:
    mask = np.zeros(size, np.bool_)
    rows, columns = (slice(round(s * start), round(s * stop)) for s in size)
    mask[rows, columns] = True
    return mask


def results(
    masks: list[tuple[int, NDArray[np.bool_]]],
    size: tuple[int, int] = SIZE,
    names: dict[int, str] | None = None,
) -> FrameResult:
    objects = []
    for object_id, mask in masks:
        entry = ObjectResult(object_id, np.zeros((1, 1), np.float32), 0.9, 1.0, size)
        entry.__dict__["mask"] = mask
        objects.append(entry)
    return FrameResult(0, tuple(objects), size, 1.0, names or {})


def changed(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray((before != after).any(axis=2))


@pytest.mark.parametrize("background", [*OVERLAY_COLORS, (0, 0, 0), (128, 128, 128), (255,) * 3])
@pytest.mark.parametrize("size", [SIZE, FULL_HD])
def test_an_edge_has_light_and_dark_on_any_background(
    background: tuple[int, int, int], size: tuple[int, int]
) -> None:
    picture, result = scene(background, size)

    row = draw(picture, result)[size[0] // 2].mean(axis=1)

    edge = row[size[1] // 4 - 6 : size[1] // 4 + 6]
    assert edge.min() < 50
    assert edge.max() > 200


def test_the_fill_has_the_color_of_the_object_whatever_is_below() -> None:
    hues = set()
    for background in ((200, 30, 40), (40, 130, 50), (30, 40, 200)):
        blue, green, red = draw(*scene(background))[120, 160].astype(int)
        assert red < green < blue  # sky blue
        hues.add(round((blue - red) / 10))
    assert len(hues) == 1


def test_texture_shows_through_the_fill() -> None:
    picture, result = scene((0, 0, 0))
    picture[:, 150:160] = 255

    row = draw(picture, result)[120].astype(int)

    assert row[155].sum() - row[170].sum() > 200


def test_only_the_object_its_edge_and_its_label_change() -> None:
    picture, result = scene((90, 100, 110))

    drawn = draw(picture, result)

    assert drawn is not picture
    assert (picture == (110, 100, 90)).all()
    assert not changed(picture, drawn)[:30].any()
    assert not changed(picture, drawn)[:, :70].any()
    assert not changed(picture, drawn)[190:].any()


def test_a_hole_has_an_edge_and_no_fill() -> None:
    picture, result = scene((90, 100, 110))
    result.objects[0].mask[100:140, 140:180] = False

    drawn = draw(picture, result)

    assert (drawn[120, 160] == (110, 100, 90)).all()
    assert drawn[98:103, 160].min() < 50


def test_an_absent_or_empty_object_is_not_drawn() -> None:
    picture, _ = scene((90, 100, 110))
    gone = ObjectResult(1, np.full((4, 4), 5, np.float32), 0.9, -1.0, SIZE)
    empty = ObjectResult(2, np.full((4, 4), -5, np.float32), 0.9, 1.0, SIZE)

    assert (draw(picture, FrameResult(0, (gone, empty), SIZE, 1.0)) == picture).all()


def labels(names: dict[int, str], object_id: int = 1) -> NDArray[np.uint8]:
    """What is drawn above an object without a mask in the way."""
    picture = np.full((*SIZE, 3), 70, np.uint8)
    result = results([(object_id, box_mask(SIZE, 0.5, 0.75))], names=names)
    return draw(picture, result)[60:116]


def test_the_label_is_the_name_or_else_the_number() -> None:
    number = labels({})
    assert changed(number, labels({1: "cup"})).any()
    assert changed(number, labels({}, 9)).any()  # the same color, another number
    assert not changed(number, labels({2: "cup"})).any()


def test_a_name_that_the_font_lacks_is_written_without_accents_or_as_the_number() -> None:
    assert not changed(labels({1: "Zo\u00e9"}), labels({1: "Zoe"})).any()
    assert not changed(labels({1: "\u5353"}), labels({})).any()


@pytest.mark.parametrize("object_id", range(1, len(OVERLAY_COLORS) + 1))
def test_letters_contrast_with_the_label(object_id: int) -> None:
    drawn = labels({object_id: "MMMM"}, object_id)[..., ::-1]
    color = np.array(overlay_color(object_id))
    rows, columns = np.nonzero((drawn == color).all(axis=2))
    letters = drawn[rows.min() : rows.max(), columns.min() : columns.max()]
    ink = max((0, 255), key=lambda gray: (letters == gray).all(axis=2).sum())
    assert (letters == ink).all(axis=2).sum() > 20
    assert contrast(color, np.full(3, ink)) >= 4.5  # WCAG, level AA


def contrast(first: NDArray[np.int_], second: NDArray[np.int_]) -> float:
    """Contrast ratio of WCAG 2.2."""
    encoded = np.stack([first, second]) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ (0.2126, 0.7152, 0.0722))
    return float((light + 0.05) / (dark + 0.05))


@pytest.mark.parametrize(
    "corner", [(0, 0), (0, 310), (230, 0), (230, 310)], ids=["tl", "tr", "bl", "br"]
)
def test_a_label_at_the_border_is_wholly_inside_the_picture(corner: tuple[int, int]) -> None:
    mask = np.zeros(SIZE, np.bool_)
    mask[corner[0] : corner[0] + 10, corner[1] : corner[1] + 10] = True
    name = {1: "a name of forty letters, the longest one"}
    picture = np.full((*SIZE, 3), 70, np.uint8)

    drawn = draw(picture, results([(1, mask)], names=name))

    rows, columns = np.nonzero((drawn == overlay_color(1)[::-1]).all(axis=2))
    assert 0 < rows.min() < rows.max() < SIZE[0] - 1
    assert 0 < columns.min() < columns.max() < SIZE[1] - 1
    assert columns.max() - columns.min() > 200


def test_a_label_is_at_the_largest_part_of_its_object() -> None:
    picture, result = scene((90, 100, 110))
    result.objects[0].mask[5:8, 310:313] = True  # a speck

    drawn = draw(picture, result)

    rows, columns = np.nonzero((drawn == overlay_color(1)[::-1]).all(axis=2))
    assert 30 < rows.min() < rows.max() < 60
    assert abs(columns.mean() - 160) < 5


def test_labels_of_neighbors_do_not_cover_each_other() -> None:
    picture = np.full((*SIZE, 3), 70, np.uint8)
    mask = box_mask(SIZE, 0.4, 0.6)
    names = {1: "first", 2: "second"}

    drawn = draw(picture, results([(1, mask), (2, mask)], names=names))

    for object_id in names:
        assert (drawn == overlay_color(object_id)[::-1]).all(axis=2).sum() > 100


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (20, 20)])
def test_pictures_smaller_than_a_label_can_be_drawn_over(size: tuple[int, int]) -> None:
    picture = np.zeros((*size, 3), np.uint8)
    assert draw(picture, results([(1, np.ones(size, np.bool_))], size)).shape == picture.shape


def test_lines_and_letters_grow_with_the_picture() -> None:
    heights = []
    for size in (SIZE, FULL_HD):
        picture, result = scene((90, 100, 110), size)
        rows = np.flatnonzero(changed(picture, draw(picture, result)).any(axis=1))
        heights.append(size[0] // 4 - rows.min())  # the label and the gap
    assert heights[1] > 1.5 * heights[0]


def test_a_mask_alone_is_drawn_in_a_given_color() -> None:
    canvas = np.full((40, 60, 3), 100, np.uint8)
    draw_mask(canvas, np.zeros((40, 60), np.bool_), (0, 0, 255))
    assert (canvas == 100).all()
    draw_mask(canvas, box_mask((40, 60), 0.2, 0.8), (0, 0, 255))
    assert canvas[20, 30, 2] > 150 > canvas[20, 30, 0]
