"""Results have the frame's size and convert without loss."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import supervision as sv
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch.nn import functional as F

from sam2_edge import FrameResult, ObjectResult, Sam2EdgeError
from sam2_edge.runtime.preprocess import PreparedFrame
from sam2_edge.runtime.results import DeviceMask, decode_rle, encode_rle
from sam2_edge.runtime.segmenter import Segmentation
from sam2_edge.runtime.sources import SourceFrame


def result(logits: NDArray[np.float32], size: tuple[int, int], object_id: int = 1) -> ObjectResult:
    return ObjectResult(object_id, logits, 0.9, 1.0, size)


def result_of(mask: NDArray[np.bool_]) -> ObjectResult:
    return result(np.where(mask, np.float32(1), np.float32(-1)), mask.shape)


def square(value: float = 5.0) -> NDArray[np.float32]:
    """Logits [8,8] that are positive on the middle 4 x 4."""
    logits = np.full((8, 8), -5, np.float32)
    logits[2:6, 2:6] = value
    return logits


@pytest.mark.parametrize("size", [(32, 32), (77, 131), (20, 300), (16, 16)])
def test_a_mask_is_the_logits_interpolated_as_pytorch_does(size: tuple[int, int]) -> None:
    logits = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)

    mask = result(logits, size).mask

    tensor = torch.from_numpy(logits)[None, None]
    want = F.interpolate(tensor, size=size, mode="bilinear", align_corners=False)[0, 0]
    sure = want.abs() > 1e-4
    assert mask.shape == size
    assert torch.equal(torch.from_numpy(mask)[sure], (want > 0)[sure])


def test_an_absent_object_has_an_empty_mask_and_no_box() -> None:
    gone = ObjectResult(1, np.full((8, 8), -1024, np.float32), 0.5, -2.0, (40, 60))
    assert not gone.present
    assert gone.mask.shape == (40, 60)
    assert not gone.mask.any()
    assert gone.box is None
    assert gone.area == 0
    assert gone.to_polygons() == []


def test_a_box_encloses_the_mask_exactly() -> None:
    found = result(square(), (8, 8))
    assert found.box == (2, 2, 6, 6)
    assert found.area == found.mask.sum() == 16


def test_rle_runs_down_the_columns_as_in_coco() -> None:
    mask = np.array([[0, 1], [1, 1]], np.bool_)
    # Column by column: one 0, then three 1. COCO writes a count as its value plus 48, in ASCII.
    assert encode_rle(mask) == {"size": [2, 2], "counts": "13"}


@given(st.integers(1, 20), st.integers(1, 20), st.randoms(use_true_random=True))
def test_decoding_an_rle_returns_the_mask(height: int, width: int, random: object) -> None:
    bits = [random.random() < 0.5 for _ in range(height * width)]  # type: ignore[attr-defined]
    mask = np.array(bits, np.bool_).reshape(height, width)
    np.testing.assert_array_equal(decode_rle(encode_rle(mask)), mask)


def from_a_gpu(mask: NDArray[np.bool_]) -> ObjectResult:
    def no_logits() -> NDArray[np.float32]:
        raise AssertionError("nobody asked for logits")

    source = DeviceMask(np.packbits(mask, axis=-1), no_logits)
    return ObjectResult(1, source, 0.9, 1.0, (mask.shape[0], mask.shape[1]))


@given(
    st.integers(1, 9),
    st.integers(1, 37),
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 36)), max_size=6),
)
def test_a_mask_from_a_gpu_has_the_box_and_the_area_of_its_pixels(
    height: int, width: int, pixels: list[tuple[int, int]]
) -> None:
    mask = np.zeros((height, width), np.bool_)
    for row, column in pixels:
        mask[row % height, column % width] = True
    found, plain = from_a_gpu(mask), from_a_gpu(mask)
    np.testing.assert_array_equal(plain.mask, mask)
    assert found.box == plain.box
    assert found.area == plain.area == mask.sum()
    assert "mask" not in found.__dict__  # it was not unpacked
    assert plain.to_rle() == encode_rle(mask)


def test_box_and_area_follow_a_mask_that_its_owner_has_modified() -> None:
    found = from_a_gpu(np.ones((6, 20), np.bool_))
    assert (found.box, found.area) == ((0, 0, 20, 6), 120)
    found.mask[:, 5:] = False
    assert (found.box, found.area) == ((0, 0, 5, 6), 30)


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_rle_does_not_depend_on_the_masks_memory(order: str) -> None:
    mask = np.random.default_rng(3).random((9, 14)) < 0.5
    want = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    assert encode_rle(np.asarray(mask, order=order))["counts"] == want  # type: ignore[call-overload]
    assert encode_rle(mask[:, ::-1][:, ::-1])["counts"] == want


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 14)), min_size=1, max_size=6))
def test_a_box_is_the_smallest_that_holds_the_mask(pixels: list[tuple[int, int]]) -> None:
    logits = np.full((10, 15), -1, np.float32)
    for row, column in pixels:
        logits[row, column] = 1
    found = result(logits, (10, 15))
    assert found.box is not None
    x1, y1, x2, y2 = found.box
    inside = found.mask[y1:y2, x1:x2]
    assert inside.sum() == found.mask.sum() == len(set(pixels))
    assert inside[0].any()
    assert inside[-1].any()
    assert inside[:, 0].any()
    assert inside[:, -1].any()


def test_polygons_are_the_outer_contours_of_the_parts() -> None:
    mask = np.zeros((40, 60), np.bool_)
    mask[5:25, 5:25] = True
    mask[12:16, 12:16] = False
    mask[10:30, 40:55] = True
    filled = np.zeros(mask.shape, np.uint8)
    polygons = result_of(mask).to_polygons()
    cv2.fillPoly(filled, polygons, 1)
    mask[12:16, 12:16] = True
    assert len(polygons) == 2
    np.testing.assert_array_equal(filled > 0, mask)


def test_a_square_becomes_a_polygon_of_its_corners() -> None:
    (polygon,) = result(square(), (8, 8)).to_polygons()
    assert {tuple(p) for p in polygon.tolist()} == {(2, 2), (2, 5), (5, 5), (5, 2)}


def test_the_higher_logit_wins_in_an_index_mask() -> None:
    weak = square(1.0)
    strong = np.full((8, 8), -5, np.float32)
    strong[4:, :] = 3.0

    frame = FrameResult(0, (result(weak, (8, 8), 3), result(strong, (8, 8), 7)), (8, 8), 1.0)

    indexed = frame.index_mask()
    assert set(np.unique(indexed)) == {0, 3, 7}
    assert (indexed[4:, :] == 7).all()
    assert (indexed[2:4, 2:6] == 3).all()
    assert frame[7].object_id == 7
    with pytest.raises(KeyError):
        frame[1]


def test_an_index_mask_leaves_absent_objects_out() -> None:
    gone = ObjectResult(2, square(), 0.5, -1.0, (8, 8))
    indexed = FrameResult(0, (result(square(), (8, 8), 254), gone), (8, 8), 1.0).index_mask()
    np.testing.assert_array_equal(indexed, np.where(square() > 0, 254, 0))
    assert indexed.dtype == np.uint8


def test_an_id_that_does_not_fit_8_bits_is_rejected() -> None:
    frame = FrameResult(0, (result(square(), (8, 8), 255),), (8, 8), 1.0)
    with pytest.raises(Sam2EdgeError, match="255 .* up to 254"):
        frame.index_mask()


def test_present_objects_become_detections() -> None:
    gone = ObjectResult(2, square(-1024), 0.1, -1.0, (8, 8))
    detections = FrameResult(0, (result(square(), (8, 8), 9), gone), (8, 8), 1.0).to_detections()
    assert detections.tracker_id.tolist() == detections.class_id.tolist() == [9]
    assert detections.xyxy.tolist() == [[2, 2, 5, 5]]
    np.testing.assert_array_equal(detections.xyxy, sv.mask_to_xyxy(detections.mask))
    assert detections.mask.sum() == 16
    assert detections.confidence.tolist() == pytest.approx([0.9])


def test_a_frame_without_objects_becomes_detections_of_the_same_fields() -> None:
    gone = ObjectResult(2, square(-1024), 0.1, -1.0, (8, 8))
    detections = FrameResult(0, (gone,), (8, 8), 1.0).to_detections()
    assert len(detections) == 0
    assert detections.mask.shape == (0, 8, 8)
    assert detections.tracker_id.size == detections.class_id.size == 0


@pytest.mark.parametrize(
    "annotator",
    [
        *(sv.BoxAnnotator, sv.MaskAnnotator, sv.LabelAnnotator, sv.TraceAnnotator),
        *(sv.PolygonAnnotator, sv.HaloAnnotator, sv.EllipseAnnotator, sv.BoxCornerAnnotator),
    ],
)
def test_annotators_draw_detections(annotator: type) -> None:
    frames = [(result(square(), (8, 8), 9),), (ObjectResult(9, square(), 0.1, -1.0, (8, 8)),)]
    draw = annotator()
    for objects in frames:
        detections = FrameResult(0, objects, (8, 8), 1.0).to_detections()
        draw.annotate(np.zeros((8, 8, 3), np.uint8), detections)


def test_boxes_agree_with_pycocotools() -> None:
    found = result(square(), (8, 8))
    x1, y1, x2, y2 = found.box or (0, 0, 0, 0)
    assert coco_mask.toBbox(found.to_rle()).tolist() == [x1, y1, x2 - x1, y2 - y1]


MASK = np.array([[0, 1, 0], [1, 1, 1]], np.bool_)


@pytest.mark.parametrize(
    "counts",
    [[1, 3, 1, 1], (1, 3, 1, 1), np.array([1, 3, 1, 1]), "131N", b"131N", [1, 3, 0, 0, 1, 1]],
    ids=["list", "tuple", "array", "str", "bytes", "empty runs"],
)
def test_every_form_of_counts_is_decoded(counts: object) -> None:
    np.testing.assert_array_equal(decode_rle({"size": [2, 3], "counts": counts}), MASK)


BAD_RLES: dict[str, object] = {
    "heap corruption": {"size": [2, 6], "counts": "OJ9COHBQ"},
    "too short": {"size": [2, 3], "counts": "13"},
    "too long": {"size": [2, 3], "counts": "131N9"},
    "empty": {"size": [2, 3], "counts": ""},
    "unfinished": {"size": [2, 3], "counts": "131n"},
    "negative run": {"size": [2, 3], "counts": "9M"},
    "a number without an end": {"size": [2, 3], "counts": "o" * 14 + "1"},
    "other characters": {"size": [2, 3], "counts": "1 31N"},
    "surrogates": {"size": [2, 3], "counts": "\ud800"},
    "beyond ASCII": {"size": [2, 3], "counts": b"13\xff"},
    "negative list": {"size": [2, 3], "counts": [-1, 7]},
    "sum that overflows": {"size": [2, 3], "counts": [2**63 - 1, 2**63 - 1, 8]},
    "numbers beyond 64 bits": {"size": [2, 3], "counts": [10**30]},
    "floats": {"size": [2, 3], "counts": [1.0, 5.0]},
    "text": {"size": [2, 3], "counts": ["1", "5"]},
    "nested": {"size": [2, 3], "counts": [[1], [2, 3]]},
    "nothing": {"size": [2, 3], "counts": None},
    "no counts": {"size": [2, 3]},
    "no size": {"counts": "131N"},
    "one side": {"size": [6], "counts": [6]},
    "three sides": {"size": [1, 2, 3], "counts": [6]},
    "no pixels": {"size": [0, 6], "counts": []},
    "negative sides": {"size": [-2, -3], "counts": [6]},
    "float sides": {"size": [2.0, 3], "counts": [6]},
    "huge": {"size": [2**20, 2**20], "counts": [2**40]},
    "5,000 digits": {"size": [10**5000, 1], "counts": [1]},
    "a list": [1, 2],
    "none": None,
}


@pytest.mark.parametrize("rle", BAD_RLES.values(), ids=BAD_RLES.keys())
def test_a_malformed_rle_is_rejected(rle: object) -> None:
    with pytest.raises(Sam2EdgeError, match="RLE"):
        decode_rle(rle)


@given(st.integers(1, 9), st.integers(1, 9), st.binary(max_size=16) | st.text(max_size=16))
def test_any_counts_are_decoded_or_rejected(height: int, width: int, counts: str | bytes) -> None:
    try:
        mask = decode_rle({"size": [height, width], "counts": counts})
    except Sam2EdgeError:
        return
    assert mask.shape == (height, width)
    np.testing.assert_array_equal(mask, coco_mask.decode({"size": mask.shape, "counts": counts}))


def test_the_centroid_is_the_mean_position_of_the_pixels() -> None:
    found = result(square(), (40, 60))
    rows, columns = np.nonzero(found.mask)
    assert found.centroid == pytest.approx((columns.mean(), rows.mean()))
    assert ObjectResult(2, square(-1024), 0.1, -1.0, (8, 8)).centroid is None


def test_the_repr_of_results_is_a_short_line() -> None:
    on_gpu = DeviceMask(np.zeros((480, 80), np.uint8), square)
    found = result(square(), (480, 640))
    segmented = Segmentation(
        np.ones((3, 480, 640), np.bool_), np.ones(3, np.float32), np.ones((3, 64, 64)), 1.0
    )
    prepared = PreparedFrame(np.zeros((1, 64, 64, 3), np.uint8), (480, 640))
    source = SourceFrame(0, "0", np.zeros((480, 640, 3), np.uint8))
    frame = FrameResult(3, (found, ObjectResult(2, square(), 0.1, -1.0, (480, 640))), (480, 640), 9)

    for shown in map(repr, (on_gpu, found, segmented, prepared, source)):
        assert "\n" not in shown
        assert len(shown) < 140
    assert "masks=bool[3, 480, 640]" in repr(segmented)
    assert "present=[1], absent=[2]" in repr(frame)
