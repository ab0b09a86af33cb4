"""Behavior of `ImageSegmenter` other than parity with PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sam2_edge import Bundle, ImageSegmenter, Prompt, PromptError, SourceError, VideoTracker
from sam2_edge.runtime.results import full_size
from tests.helpers.clips import Clip, moving_shapes

CLICK = Prompt(1, points=[(34, 38)])


@pytest.fixture
def tracker(small_bundle: Bundle) -> VideoTracker:
    return VideoTracker(small_bundle)


@pytest.fixture
def segmenter(small_bundle: Bundle, clip: Clip) -> ImageSegmenter:
    segmenter = ImageSegmenter(small_bundle)
    segmenter.set_image(clip.frames[0])
    return segmenter


def test_an_ambiguous_click_gives_three_masks_best_first(segmenter: ImageSegmenter) -> None:
    found = segmenter.predict(points=[(34, 38)], multimask=True)
    assert found.masks.shape == (3, 128, 128)
    assert found.logits.shape == (3, 32, 32)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_scores_belong_to_their_masks(segmenter: ImageSegmenter) -> None:
    many = segmenter.predict(points=[(34, 38)], multimask=True)
    one = segmenter.predict(points=[(34, 38), (36, 40)])
    for found in (many, one):
        enlarged = [full_size(logits, (128, 128)) > 0 for logits in found.logits]
        np.testing.assert_array_equal(found.masks, enlarged)
        assert len(found.scores) == len(found.masks)


def test_the_next_image_replaces_the_last(small_bundle: Bundle, segmenter: ImageSegmenter) -> None:
    picture = moving_shapes(1, (90, 160), seed=3).frames[0]
    fresh = ImageSegmenter(small_bundle)
    fresh.set_image(picture)
    segmenter.set_image(picture)
    again, first = (s.predict(box=(20, 20, 80, 60)) for s in (segmenter, fresh))
    assert again.masks.shape == (1, 90, 160)
    np.testing.assert_allclose(again.logits, first.logits, atol=1e-5)


@pytest.mark.parametrize("image", [np.zeros((9, 9)), np.zeros((9, 9, 4), np.uint8), None])
def test_a_bad_image_leaves_the_previous_one(segmenter: ImageSegmenter, image: Any) -> None:
    before = segmenter.predict(points=[(34, 38)])
    with pytest.raises(SourceError, match="BGR"):
        segmenter.set_image(image)
    np.testing.assert_array_equal(segmenter.predict(points=[(34, 38)]).masks, before.masks)


def test_an_unambiguous_prompt_gives_the_best_mask(segmenter: ImageSegmenter) -> None:
    found = segmenter.predict(box=(70, 70, 120, 120))
    assert found.masks.shape == (1, 128, 128)
    assert found.scores.shape == (1,)


def test_an_image_is_segmented_as_a_videos_first_frame(
    segmenter: ImageSegmenter, tracker: VideoTracker, clip: Clip
) -> None:
    image = segmenter.predict(points=[(34, 38)], multimask=True)
    first = tracker.track(clip.frames[0], [CLICK])[1]
    np.testing.assert_allclose(image.logits[0], first.logits, atol=1e-4)
    assert image.scores[0] == pytest.approx(first.iou)


def test_logits_and_masks_are_improved(segmenter: ImageSegmenter, clip: Clip) -> None:
    first = segmenter.predict(points=[(34, 38)])
    again = segmenter.predict(points=[(34, 38)], logits=first.logits[0])
    from_mask = segmenter.predict(mask=clip.masks[0] == 1)
    assert np.abs(again.logits - first.logits).max() > 0.01
    assert from_mask.masks.shape == (1, 128, 128)


def test_logits_are_clamped_to_32_as_in_the_published_predictor(segmenter: ImageSegmenter) -> None:
    first = segmenter.predict(points=[(34, 38)]).logits[0]
    by_limit = {
        limit: segmenter.predict(points=[(34, 38)], logits=np.where(first > 0, limit, -limit))
        for limit in (16, 32, 100)
    }
    np.testing.assert_array_equal(by_limit[100].logits, by_limit[32].logits)
    assert np.abs(by_limit[16].logits - by_limit[32].logits).max() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "empty prompt"),
        ({"points": [(500, 1)]}, "outside the frame"),
        ({"labels": [1]}, "labels without points"),
        ({"logits": np.zeros((9, 9), np.float32)}, r"give \[32, 32\]"),
        ({"mask": np.ones((128, 128)), "logits": np.zeros((32, 32))}, "give one of them"),
        ({"mask": np.zeros((128, 128))}, "mask is empty"),
    ],
)
def test_a_bad_image_prompt_is_refused(
    segmenter: ImageSegmenter, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        segmenter.predict(**arguments)


def test_a_prompt_needs_an_image(small_bundle: Bundle) -> None:
    with pytest.raises(PromptError, match="call set_image first"):
        ImageSegmenter(small_bundle).predict(points=[(1, 1)])
