"""Automatic masks, record by record against the published generator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sam2_edge.compat.image.automatic_masks import SAM2AutomaticMaskGenerator
from sam2_edge.compat.image.run_lengths import mask_of_runs
from sam2_edge.runtime.results import decode_rle
from tests.compat.original import torchvision_shim
from tests.compat.original.conftest import Sides
from tests.compat.original.images import picture
from tests.compat.original.video import connected_components

pytestmark = pytest.mark.original

LOOSE = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.6, "points_per_side": 12}
"""Thresholds for nano, whose logits are low: many masks stay and many go."""

RANDOM = {
    "pred_iou_thresh": 0.4,
    "stability_score_thresh": 0.7,
    "points_per_side": 6,
    "box_nms_thresh": 1.0,
}
"""Thresholds for random weights, whose masks all reach over the whole picture."""

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one mask per point": {"multimask_output": False},
    "refined": {"use_m2m": True, "points_per_side": 8},
    "other thresholds": {"mask_threshold": 0.5, "stability_score_offset": 0.7},
    "no thresholds": {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 6},
    "own points": {
        "points_per_side": None,
        "point_grids": [np.random.default_rng(4).random((100, 2))],
    },
    "odd batches, strict boxes": {"points_per_batch": 7, "box_nms_thresh": 0.5},
}


def as_mask(segmentation: Any) -> NDArray[np.bool_]:
    """A segmentation of any output mode as [H,W] bool."""
    if isinstance(segmentation, np.ndarray):
        return segmentation
    if isinstance(segmentation["counts"], str):
        return decode_rle(segmentation)
    return mask_of_runs(segmentation)


def assert_same_records(ours: list[Any], theirs: list[Any], *, pixels: int = 0) -> None:
    """The same records in the same order; `pixels` of a mask may differ, and then its box too."""
    assert len(ours) == len(theirs)
    for got, want in zip(ours, theirs, strict=True):
        assert got.keys() == want.keys()
        assert type(got["segmentation"]) is type(want["segmentation"])
        masks = as_mask(got["segmentation"]), as_mask(want["segmentation"])
        assert (masks[0] != masks[1]).sum() <= pixels
        assert masks[0].shape == masks[1].shape
        assert abs(got["area"] - want["area"]) <= pixels
        assert got["point_coords"] == want["point_coords"]
        assert got["crop_box"] == want["crop_box"]
        close = 1e-4 if pixels == 0 else 1e-2
        assert abs(got["predicted_iou"] - want["predicted_iou"]) < close
        np.testing.assert_allclose(got["stability_score"], want["stability_score"], atol=close)
        if pixels == 0:
            assert got["bbox"] == want["bbox"]
        for key in ("area", "bbox", "predicted_iou", "stability_score"):
            assert type(got[key]) is type(want[key])


def both(sides: Sides, image: NDArray[np.uint8], **options: Any) -> tuple[list[Any], list[Any]]:
    """Records of both generators."""
    ours = SAM2AutomaticMaskGenerator(sides.ours, **options)
    return ours.generate(image), sides.generator(**options).generate(image)


@pytest.mark.parametrize("name", CASES)
def test_records_are_the_original_ones(nano_sides: Sides, name: str) -> None:
    ours, theirs = both(nano_sides, picture(), **{**LOOSE, **CASES[name]})
    assert len(theirs) >= 3
    assert_same_records(ours, theirs)


def test_records_of_random_weights(tiny_sides: Sides) -> None:
    ours, theirs = both(tiny_sides, picture(), **RANDOM)
    assert 10 < len(theirs) < 3 * 36 - 10
    assert_same_records(ours, theirs)


def test_thresholds_and_suppression_leave_masks_out(nano_sides: Sides) -> None:
    """Or the comparisons above would prove nothing."""
    kept = len(SAM2AutomaticMaskGenerator(nano_sides.ours, **LOOSE).generate(picture()))
    for loosened in ("pred_iou_thresh", "stability_score_thresh"):
        options = {**LOOSE, loosened: 0.0}
        more = SAM2AutomaticMaskGenerator(nano_sides.ours, **options).generate(picture())
        assert len(more) > kept
    every = SAM2AutomaticMaskGenerator(nano_sides.ours, **{**LOOSE, "box_nms_thresh": 1.0})
    assert len(every.generate(picture())) > 2 * kept


@pytest.mark.parametrize("mode", ["uncompressed_rle", "coco_rle"])
def test_run_lengths_are_the_original_ones(nano_sides: Sides, mode: str) -> None:
    ours, theirs = both(nano_sides, picture(), **LOOSE, output_mode=mode)
    assert_same_records(ours, theirs)
    assert [r["segmentation"] for r in ours] == [r["segmentation"] for r in theirs]


@pytest.mark.parametrize("layers", [1, 2])
def test_crops(nano_sides: Sides, monkeypatch: pytest.MonkeyPatch, layers: int) -> None:
    """Crops are resized; see `test_a_picture_of_another_size`."""
    monkeypatch.setattr(torchvision_shim.Resize, "levels", 255)
    options = {
        "pred_iou_thresh": 0.3,
        "stability_score_thresh": 0.5,
        "points_per_side": 8,
        "crop_n_layers": layers,
        "crop_n_points_downscale_factor": 2,
        "crop_nms_thresh": 0.6,
    }
    ours, theirs = both(nano_sides, picture(size=(240, 310)), **options)
    assert len({tuple(r["crop_box"]) for r in theirs}) > 2
    assert_same_records(ours, theirs, pixels=3)


def test_small_regions_are_removed(nano_sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2.utils.misc.get_connected_components", connected_components)
    ours, theirs = both(nano_sides, picture(), **LOOSE, min_mask_region_area=60)
    assert_same_records(ours, theirs)
    plain = SAM2AutomaticMaskGenerator(nano_sides.ours, **LOOSE).generate(picture())
    assert [r["area"] for r in plain] != [r["area"] for r in ours]


def test_a_picture_with_nothing_on_it(nano_sides: Sides) -> None:
    image = np.full((256, 256, 3), 127, np.uint8)
    ours, theirs = both(nano_sides, image, points_per_side=4)
    assert ours == theirs == []
