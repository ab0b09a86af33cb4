"""Automatic masks, record by record against the published generator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from sam2_edge.compat.image.automatic_masks import SAM2AutomaticMaskGenerator
from sam2_edge.runtime.results import decode_rle
from tests.compat.original import torchvision_shim
from tests.compat.original.images import synthetic_image
from tests.compat.original.models import ModelPair
from tests.compat.original.video import connected_components

pytestmark = pytest.mark.original

LOOSE = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.6, "points_per_side": 12}
"""Thresholds for nano, whose logits are low: many masks pass and many do not."""

RANDOM = {
    "pred_iou_thresh": 0.4,
    "stability_score_thresh": 0.7,
    "points_per_side": 6,
    "box_nms_thresh": 1.0,
}
"""Thresholds for random weights, whose masks all cover the whole image."""

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
    """A segmentation of any output mode as [H, W] bool."""
    if isinstance(segmentation, np.ndarray):
        return segmentation
    if isinstance(segmentation["counts"], str):
        return decode_rle(segmentation)
    height, width = segmentation["size"]
    return coco_mask.decode(coco_mask.frPyObjects(segmentation, height, width)) > 0


def assert_same_records(ours: list[Any], published: list[Any], *, pixels: int = 0) -> None:
    """The same records in the same order; `pixels` of a mask, and then its box, may differ."""
    assert len(ours) == len(published)
    for got, want in zip(ours, published, strict=True):
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


def both(pair: ModelPair, image: NDArray[np.uint8], **options: Any) -> tuple[list[Any], list[Any]]:
    """Records of both generators."""
    ours = SAM2AutomaticMaskGenerator(pair.ours, **options)
    return ours.generate(image), pair.generator(**options).generate(image)


@pytest.mark.parametrize("name", CASES)
def test_records_are_the_original_ones(nano_pair: ModelPair, name: str) -> None:
    ours, published = both(nano_pair, synthetic_image(), **{**LOOSE, **CASES[name]})
    assert len(published) >= 3
    assert_same_records(ours, published)


def test_records_of_random_weights(tiny_pair: ModelPair) -> None:
    ours, published = both(tiny_pair, synthetic_image(), **RANDOM)
    assert 10 < len(published) < 3 * 36 - 10
    assert_same_records(ours, published)


def test_thresholds_and_suppression_drop_masks(nano_pair: ModelPair) -> None:
    """Otherwise the comparisons above would prove nothing."""
    kept = len(SAM2AutomaticMaskGenerator(nano_pair.ours, **LOOSE).generate(synthetic_image()))
    for loosened in ("pred_iou_thresh", "stability_score_thresh"):
        options = {**LOOSE, loosened: 0.0}
        more = SAM2AutomaticMaskGenerator(nano_pair.ours, **options).generate(synthetic_image())
        assert len(more) > kept
    every = SAM2AutomaticMaskGenerator(nano_pair.ours, **{**LOOSE, "box_nms_thresh": 1.0})
    assert len(every.generate(synthetic_image())) > 2 * kept


@pytest.mark.parametrize("mode", ["uncompressed_rle", "coco_rle"])
def test_run_lengths_are_the_original_ones(nano_pair: ModelPair, mode: str) -> None:
    ours, published = both(nano_pair, synthetic_image(), **LOOSE, output_mode=mode)
    assert_same_records(ours, published)
    assert [r["segmentation"] for r in ours] == [r["segmentation"] for r in published]


@pytest.mark.parametrize("layers", [1, 2])
def test_crops(nano_pair: ModelPair, monkeypatch: pytest.MonkeyPatch, layers: int) -> None:
    """Crops are resized; see `test_an_image_of_another_size`."""
    monkeypatch.setattr(torchvision_shim.Resize, "levels", 255)
    options = {
        "pred_iou_thresh": 0.3,
        "stability_score_thresh": 0.5,
        "points_per_side": 8,
        "crop_n_layers": layers,
        "crop_n_points_downscale_factor": 2,
        "crop_nms_thresh": 0.6,
    }
    ours, published = both(nano_pair, synthetic_image(size=(240, 310)), **options)
    assert len({tuple(r["crop_box"]) for r in published}) > 2
    assert_same_records(ours, published, pixels=3)


def test_small_regions_are_removed(nano_pair: ModelPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2.utils.misc.get_connected_components", connected_components)
    ours, published = both(nano_pair, synthetic_image(), **LOOSE, min_mask_region_area=60)
    assert_same_records(ours, published)
    plain = SAM2AutomaticMaskGenerator(nano_pair.ours, **LOOSE).generate(synthetic_image())
    assert [r["area"] for r in plain] != [r["area"] for r in ours]


def test_an_empty_image(nano_pair: ModelPair) -> None:
    image = np.full((256, 256, 3), 127, np.uint8)
    ours, published = both(nano_pair, image, points_per_side=4)
    assert ours == published == []
