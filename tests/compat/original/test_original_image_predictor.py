"""The image predictor, argument by argument against the published one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sam2_edge.bundle.contract import PARITY_TOLERANCE
from sam2_edge.compat.image.predictor import SAM2ImagePredictor
from tests.compat.original import torchvision_shim
from tests.compat.original.images import synthetic_image
from tests.compat.original.models import ModelPair
from tests.compat.original.video import connected_components

pytestmark = pytest.mark.original

TOLERANCE = PARITY_TOLERANCE["fp32"]

HALFWAY_TOLERANCE = 0.05
"""On logits, where single pixels of the two images differ by a gray level."""

POINTS = {"point_coords": [[100, 90], [30, 200]], "point_labels": [1, 0]}

BOX = [20, 30, 200, 220]

BOXES = [[20, 30, 200, 220], [90, 60, 170, 150], [100, 20, 130, 240]]

MANY = {
    "point_coords": [[[100, 90], [30, 200]], [[10, 10], [-3, 300]]],
    "point_labels": [[1, 0], [1, -1]],
}

NORMALIZED = {"point_coords": [[0.4, 0.3]], "point_labels": [1], "normalize_coords": False}


PROMPTS: dict[str, dict[str, Any]] = {
    "points": POINTS,
    "one point": {"point_coords": [[100, 90]], "point_labels": [1]},
    "points in 0..1": NORMALIZED,
    "rows of points": MANY,
    "box": {"box": BOX},
    "boxes": {"box": BOXES},
    "one box in a list": {"box": [BOX]},
    "box and points": {"box": BOX, **POINTS},
    "boxes and points": {"box": BOXES[:2], **MANY},
    "box in 0..1": {"box": [0.1, 0.1, 0.7, 0.9], "normalize_coords": False},
}


def arrays(prompt: dict[str, Any]) -> dict[str, Any]:
    """Convert lists to arrays, which the original requires."""
    return {k: np.array(v) if isinstance(v, list) else v for k, v in prompt.items()}


def assert_same(ours: Any, published: Any, *, logits: bool, tolerance: float = TOLERANCE) -> None:
    """Masks, scores and logits agree in shape, type and value."""
    for got, want in zip(ours, published, strict=True):
        assert got.shape == want.shape
        assert got.dtype == want.dtype == np.float32
    for got, want in zip(ours[0 if logits else 1 :], published[0 if logits else 1 :], strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)


def compare(
    ours: SAM2ImagePredictor,
    published: Any,
    prompt: dict[str, Any],
    *,
    tolerance: float = TOLERANCE,
) -> None:
    """Compare all results of a prompt, with masks as logits and as masks."""
    given = arrays(prompt)
    got, want = (p.predict(return_logits=True, **given) for p in (ours, published))
    assert_same(got, want, logits=True, tolerance=tolerance)
    got_masks, want_masks = (p.predict(**given) for p in (ours, published))
    assert_same(got_masks, want_masks, logits=False, tolerance=tolerance)
    sure = np.abs(want[0] - ours.mask_threshold) > tolerance
    np.testing.assert_array_equal(got_masks[0][sure], want_masks[0][sure])


@pytest.fixture(scope="module", params=["tiny_pair", "nano_pair"])
def models(request: pytest.FixtureRequest) -> ModelPair:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def pair(models: ModelPair) -> tuple[SAM2ImagePredictor, Any]:
    """Both predictors, with the same image of the model's own size."""
    ours, published = SAM2ImagePredictor(models.ours), models.predictor()
    for predictor in (ours, published):
        predictor.set_image(synthetic_image())
    return ours, published


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_gives_the_original_masks_scores_and_logits(
    pair: tuple[SAM2ImagePredictor, Any], name: str, multimask: bool
) -> None:
    compare(*pair, {**PROMPTS[name], "multimask_output": multimask})


def test_prompts_lead_to_different_masks(pair: tuple[SAM2ImagePredictor, Any]) -> None:
    """Otherwise the comparisons above would prove nothing."""
    logits = [pair[0].predict(**arrays(PROMPTS[n]))[2][0] for n in ("points", "box", "one point")]
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(logits[a] - logits[b]).mean() > 100 * TOLERANCE


@pytest.mark.parametrize("prompt", [POINTS, {"box": BOXES}], ids=["points", "boxes"])
def test_logits_of_a_prediction_are_refined(
    pair: tuple[SAM2ImagePredictor, Any], prompt: dict[str, Any]
) -> None:
    _, _, logits = pair[1].predict(multimask_output=False, **arrays(prompt))
    compare(*pair, {**prompt, "mask_input": logits, "multimask_output": False})


def test_one_mask_applies_to_all_objects(pair: tuple[SAM2ImagePredictor, Any]) -> None:
    _, _, logits = pair[1].predict(multimask_output=False, box=np.array(BOX))
    compare(*pair, {"box": BOXES, "mask_input": logits})


def test_the_embedding_is_the_original_one(pair: tuple[SAM2ImagePredictor, Any]) -> None:
    got, want = pair[0].get_image_embedding(), pair[1].get_image_embedding().numpy()
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)


def test_another_threshold_changes_the_masks(models: ModelPair) -> None:
    ours = SAM2ImagePredictor(models.ours, mask_threshold=1.5)
    published = models.predictor(mask_threshold=1.5)
    for predictor in (ours, published):
        predictor.set_image(Image.fromarray(synthetic_image()))
    compare(ours, published, POINTS)


def test_without_postprocessing_the_single_mask_is_kept(
    nano_pair: ModelPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`build_sam2(apply_postprocessing=False)`."""
    decoder = nano_pair.original.sam_mask_decoder
    monkeypatch.setattr(decoder, "dynamic_multimask_via_stability", False)
    model = replace(nano_pair.ours, dynamic_multimask_via_stability=False)
    ours, published = SAM2ImagePredictor(model), nano_pair.predictor()
    by_stability = SAM2ImagePredictor(nano_pair.ours)
    for predictor in (ours, published, by_stability):
        predictor.set_image(synthetic_image())
    prompt = {"box": BOXES, "multimask_output": False}
    compare(ours, published, prompt)
    other = by_stability.predict(**arrays(prompt))[0] != ours.predict(**arrays(prompt))[0]
    assert other.any()


def test_a_batch_of_images(models: ModelPair) -> None:
    ours, published = SAM2ImagePredictor(models.ours), models.predictor()
    images = [synthetic_image(seed) for seed in (10, 11, 12)]
    prompts = {
        "point_coords_batch": [np.array([[100, 90.0]]), None, np.array([[[9, 8.0]], [[70, 99]]])],
        "point_labels_batch": [np.array([1]), None, np.array([[1], [0]])],
        "box_batch": [None, np.array(BOXES), np.array(BOXES[1:])],
    }
    for predictor in (ours, published):
        predictor.set_image_batch(images)
    for options in ({"return_logits": True}, {"return_logits": True, "multimask_output": False}):
        got, want = (p.predict_batch(**prompts, **options) for p in (ours, published))
        for index in range(3):
            parts = ([part[index] for part in side] for side in (got, want))
            assert_same(*parts, logits=True)
    assert ours.get_image_embedding().shape == published.get_image_embedding().shape
    compare(ours, published, POINTS)  # of the last image


@pytest.mark.parametrize("size", [(200, 300), (310, 120), (100, 90)])
def test_an_image_of_another_size(
    models: ModelPair, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resized as in the original, but to whole gray levels, since the graphs take bytes. A value
    halfway between two levels may be rounded either way.
    """
    monkeypatch.setattr(torchvision_shim.Resize, "levels", 255)
    ours, published = SAM2ImagePredictor(models.ours), models.predictor()
    for predictor in (ours, published):
        predictor.set_image(synthetic_image(size=size))
    prompt = {"box": [10, 20, 80, 70], "point_coords": [[40, 50]], "point_labels": [1]}
    compare(ours, published, prompt, tolerance=HALFWAY_TOLERANCE)


def test_whole_gray_levels_change_little(nano_pair: ModelPair) -> None:
    """Compared with the original's floating-point image; see docs/guides/drop-in.md."""
    ours, published = SAM2ImagePredictor(nano_pair.ours), nano_pair.predictor()
    for predictor in (ours, published):
        predictor.set_image(synthetic_image(size=(310, 240)))
    prompt = {"box": np.array([20, 30, 180, 200])}
    got, want = (p.predict(return_logits=True, **prompt) for p in (ours, published))
    assert np.abs(got[2] - want[2]).mean() < 0.05
    assert ((got[0] > 0) != (want[0] > 0)).mean() < 0.002


@pytest.mark.parametrize(("holes", "islands"), [(40, 0), (0, 40), (60, 60)])
def test_small_holes_and_islands_are_removed(
    models: ModelPair, holes: int, islands: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original does this only on a GPU; here scikit-image finds the regions for it."""
    monkeypatch.setattr("sam2.utils.misc.get_connected_components", connected_components)
    plain = SAM2ImagePredictor(models.ours)
    areas = {"max_hole_area": holes, "max_sprinkle_area": islands}
    ours, published = SAM2ImagePredictor(models.ours, **areas), models.predictor(**areas)
    for predictor in (plain, ours, published):
        predictor.set_image(synthetic_image())
    changed = 0
    for prompt in (POINTS, {"box": BOXES}, MANY):
        compare(ours, published, prompt)
        changed += int(
            (ours.predict(**arrays(prompt))[0] != plain.predict(**arrays(prompt))[0]).sum()
        )
    assert changed > 100
