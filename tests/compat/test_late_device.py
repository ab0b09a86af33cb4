"""The drop-in predictors and the segmenter on a GPU that runs late equal the CPU bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sam2_edge import Bundle, ImageSegmenter
from sam2_edge.compat import (
    SAM2AutomaticMaskGenerator,
    SAM2ImagePredictor,
    Sam2Model,
    SAM2VideoPredictor,
    open_model,
)
from tests.helpers.clips import Clip
from tests.helpers.late_device import LateDevice
from tests.helpers.late_device.backends import LATE_NAMES, LateBackend, late_backend

Results = Iterator[NDArray[Any]]


@pytest.fixture(params=LATE_NAMES)
def late(
    request: pytest.FixtureRequest, late_device: LateDevice, monkeypatch: pytest.MonkeyPatch
) -> LateBackend:
    return late_backend(request.param, late_device, monkeypatch, objects=8)


def images(model: Sam2Model, clip: Clip, _folder: Path, _engines: bool) -> Results:
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(clip.frames[0][..., ::-1])
    points = np.array([[34, 38], [90, 90]])
    masks, scores, logits = predictor.predict(points, np.array([1, 0]))
    yield from (masks, scores, logits)
    best = logits[np.argmax(scores)][None]
    yield from predictor.predict(points, np.array([1, 0]), mask_input=best, multimask_output=False)
    predictor.set_image_batch([frame[..., ::-1] for frame in clip.frames[:2]])
    boxes = [np.array([[60, 60, 110, 110]]), np.array([[10, 10, 60, 60], [50, 50, 90, 99]])]
    for found in predictor.predict_batch(box_batch=boxes, multimask_output=False):
        yield from found


def automatic_masks(model: Sam2Model, clip: Clip, _folder: Path, _engines: bool) -> Results:
    generator = SAM2AutomaticMaskGenerator(
        model,
        points_per_side=4,
        points_per_batch=7,
        pred_iou_thresh=0.0,
        stability_score_thresh=0.0,
    )
    for found in generator.generate(clip.frames[0][..., ::-1]):
        yield found["segmentation"]
        yield np.array(found["predicted_iou"])


def video(model: Sam2Model, clip: Clip, folder: Path, engines: bool) -> Results:
    predictor = SAM2VideoPredictor(model)
    with predictor.init_state(folder) as state:
        yield predictor.add_new_points_or_box(state, 0, 1, points=[[34, 38]], labels=[1])[2]
        yield predictor.add_new_points_or_box(state, 0, 2, box=[60, 60, 110, 110])[2]
        for _, _, masks in predictor.propagate_in_video(state):
            yield masks
        yield predictor.add_new_points_or_box(
            state, 5, 1, points=[[50, 50], [9, 9]], labels=[1, 0]
        )[2]
        yield predictor.add_new_mask(state, 5, 2, clip.masks[5] == 2)[2]
        for _, _, masks in predictor.propagate_in_video(state):
            yield masks
        if not engines:  # which need an object pointer; there is none on that side of the prompts
            for _, _, masks in predictor.propagate_in_video(state, 5, reverse=True):
                yield masks


@pytest.mark.parametrize("job", [images, automatic_masks, video])
def test_predictors_equal_the_cpu(
    late: LateBackend,
    full_bundle: Bundle,
    clip: Clip,
    clip_folder: Path,
    job: Callable[[Sam2Model, Clip, Path, bool], Results],
) -> None:
    ours = open_model(late.bundle(full_bundle), late.name)
    theirs = open_model(full_bundle, "cpu", threads=1)
    engines = late.name != "cuda"
    found = [np.asarray(result) for result in job(ours, clip, clip_folder, engines)]
    wanted = [np.asarray(result) for result in job(theirs, clip, clip_folder, engines)]
    assert len(found) == len(wanted) > 0
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_segmenter_equals_the_cpu(late: LateBackend, full_bundle: Bundle, clip: Clip) -> None:
    results = []
    ours = ImageSegmenter(late.bundle(full_bundle), backend=late.name)
    for segmenter in (ours, ImageSegmenter(full_bundle, backend="cpu", threads=1)):
        segmenter.set_image(clip.frames[0])
        first = segmenter.predict(points=[(34, 38)])
        again = segmenter.predict(points=[(34, 38)], logits=first.logits[0])
        results.append([first, again])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a.masks, b.masks)
        np.testing.assert_array_equal(a.logits, b.logits)
        np.testing.assert_array_equal(a.scores, b.scores)
