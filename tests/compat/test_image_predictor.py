"""The image predictor, without the original package."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from sam2_edge import ImageSegmenter, PromptError, SourceError
from sam2_edge.bundle import load_bundle
from sam2_edge.compat import SAM2ImagePredictor, Sam2Model, open_model
from sam2_edge.runtime.resampling import antialiased, antialiased_picture
from sam2_edge.synthetic import clip
from tests.helpers.engines import as_engines

CLICK = {"point_coords": np.array([[100, 90]]), "point_labels": np.array([1])}
BOXES = np.array([[20, 30, 200, 220], [90, 60, 170, 150], [100, 20, 130, 240]])


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    return open_model("nano", "cpu", threads=1)


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return clip(24, frames=1, split="heldout", photographs=False).frames[0][..., ::-1]


@pytest.fixture
def predictor(model: Sam2Model, image: NDArray[np.uint8]) -> SAM2ImagePredictor:
    made = SAM2ImagePredictor(model)
    made.set_image(image)
    return made


def test_the_predictor_agrees_with_the_image_segmenter(
    predictor: SAM2ImagePredictor, image: NDArray[np.uint8]
) -> None:
    segmenter = ImageSegmenter("nano", backend="cpu", threads=1)
    segmenter.set_image(np.ascontiguousarray(image[..., ::-1]))
    masks, iou, logits = predictor.predict(**CLICK, multimask_output=False)
    want = segmenter.predict(points=CLICK["point_coords"])
    np.testing.assert_array_equal(masks.astype(bool), want.masks)
    np.testing.assert_array_equal(iou, want.scores)
    np.testing.assert_allclose(logits, np.clip(want.logits, -32, 32), atol=1e-5)


def test_a_predictor_opens_a_bundle(image: NDArray[np.uint8]) -> None:
    for bundle in ("nano", load_bundle("nano")):
        made = SAM2ImagePredictor(bundle)
        made.set_image(Image.fromarray(np.ascontiguousarray(image)))
        assert made.predict(**CLICK)[0].shape == (3, 256, 256)
    named = SAM2ImagePredictor.from_pretrained("nano", device="cpu", mask_threshold=0.5)
    assert named.mask_threshold == 0.5
    assert named.device == "cpu"


@pytest.fixture
def limited(model: Sam2Model, image: NDArray[np.uint8]) -> SAM2ImagePredictor:
    """Within the limits of engines for two objects and two points."""
    bundle = as_engines(model.graphs.bundle, objects=2, points=2)
    made = SAM2ImagePredictor(open_model(bundle, model.graphs.backend))
    made.set_image(image)
    return made


def test_more_objects_than_an_engine_takes_are_split(
    predictor: SAM2ImagePredictor, limited: SAM2ImagePredictor
) -> None:
    together = predictor.predict(box=BOXES)
    for got, want in zip(limited.predict(box=BOXES), together, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_more_points_than_an_engine_takes_are_rejected(limited: SAM2ImagePredictor) -> None:
    assert limited.predict(box=BOXES)[0].shape == (3, 3, 256, 256)
    with pytest.raises(PromptError, match="3 points, .* engines take 2: give fewer"):
        limited.predict(box=BOXES[0], **CLICK)


def test_objects_do_not_depend_on_each_other(predictor: SAM2ImagePredictor) -> None:
    together = predictor.predict(box=BOXES, return_logits=True)
    for row, box in enumerate(BOXES):
        alone = predictor.predict(box=box, return_logits=True)
        for got, want in zip(alone, together, strict=True):
            np.testing.assert_allclose(got, want[row], atol=1e-4)


def test_modifying_results_does_not_change_later_ones(predictor: SAM2ImagePredictor) -> None:
    first = predictor.predict(**CLICK)
    for part in first:
        part[:] = 7
    predictor.get_image_embedding()[:] = 7
    assert not (predictor.predict(**CLICK)[2] == 7).any()


def test_a_mask_alone_is_a_prompt(predictor: SAM2ImagePredictor) -> None:
    """Not exactly as in the original, see docs/guides/drop-in.md."""
    first, second = (predictor.predict(box=box, multimask_output=False)[2] for box in BOXES[:2])
    masks = [predictor.predict(mask_input=m, multimask_output=False)[0] for m in (first, second)]
    assert masks[0].shape == (1, 256, 256)
    assert (masks[0] != masks[1]).mean() > 0.01


@pytest.mark.parametrize(("height", "width"), [(200, 300), (64, 700), (100, 90), (512, 512)])
def test_images_are_resized_as_by_pytorch(height: int, width: int) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).float()
    want = F.interpolate(tensor[None], (256, 256), mode="bilinear", antialias=True)[0].numpy()
    got = [antialiased(p.astype(np.float32), (256, 256)) for p in np.moveaxis(pixels, -1, 0)]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-3)
    levels = antialiased_picture(pixels, 256).astype(np.float32)
    assert np.abs(levels - np.moveaxis(want, 0, -1)).max() < 0.501


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"point_coords": [[1, 2]]}, "points without labels; give one label per point"),
        ({"point_labels": [1]}, "labels without points; give one point per label"),
        ({"point_coords": [1, 2], "point_labels": 1}, r"give \[N, 2\] or \[B, N, 2\]"),
        ({"point_coords": [[1, 2]], "point_labels": [1, 0]}, "give one label per point"),
        ({"point_coords": [[1, 2]], "point_labels": [7]}, "label 7; give 1 for foreground"),
        ({"point_coords": [[np.nan, 2]], "point_labels": [1]}, "points holds .* not finite"),
        ({"point_coords": "here", "point_labels": [1]}, "points 'here' are not numbers"),
        ({"box": [1, 2, 3]}, r"box has shape \(3,\); .* as \[4\] or \[B, 4\]"),
        (
            {"box": BOXES, "point_coords": [[1, 2]], "point_labels": [1]},
            "3 boxes and 1 rows of points; give one row per box",
        ),
        ({"mask_input": np.zeros((1, 9, 9))}, r"shape \(1, 1, 9, 9\); give \[1, 64, 64\]"),
        ({"box": BOXES, "mask_input": np.zeros((2, 1, 64, 64))}, "2 masks for 3 prompts"),
    ],
)
def test_invalid_prompts_are_rejected(
    predictor: SAM2ImagePredictor, prompt: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        predictor.predict(**prompt)


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        (
            np.zeros((4, 4, 4), np.uint8),
            r"uint8 of shape \(4, 4, 4\); give a uint8 array \[H, W, 3\]",
        ),
        (np.zeros((4, 4, 3), np.float32), "float32 of shape"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (Image.new("RGBA", (4, 4)), r'mode RGBA; convert it with image.convert\("RGB"\)'),
        ("image.png", "the image is str"),
    ],
)
def test_an_invalid_image_is_rejected(model: Sam2Model, invalid: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        SAM2ImagePredictor(model).set_image(invalid)


def test_prompts_require_an_image(predictor: SAM2ImagePredictor) -> None:
    predictor.reset_predictor()
    with pytest.raises(PromptError, match="call set_image first"):
        predictor.predict(**CLICK)
    with pytest.raises(PromptError, match="call set_image first"):
        predictor.get_image_embedding()


def test_a_batch_requires_images_and_a_prompt_for_each(
    predictor: SAM2ImagePredictor, image: NDArray[np.uint8]
) -> None:
    with pytest.raises(PromptError, match="call set_image_batch first"):
        predictor.predict_batch(box_batch=[BOXES])
    with pytest.raises(PromptError, match="the list of images is empty"):
        predictor.set_image_batch([])
    predictor.set_image_batch([image, image])
    with pytest.raises(PromptError, match="1 prompts for 2 images"):
        predictor.predict_batch(box_batch=[BOXES])
