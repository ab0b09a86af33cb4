"""Forms in which code for the original passes its arguments, and misuse that ends in one error."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from sam2_edge import ImageSegmenter, PromptError, Sam2EdgeError, VideoTracker
from sam2_edge.compat import SAM2ImagePredictor, Sam2Model, SAM2VideoPredictor, open_model
from sam2_edge.compat.video.state import InferenceState
from tests.helpers.clips import moving_shapes

FRAMES = moving_shapes(3).frames


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    return open_model("nano", "cpu", threads=1)


@pytest.fixture
def predictor(model: Sam2Model) -> SAM2VideoPredictor:
    return SAM2VideoPredictor(model)


@pytest.fixture
def state(predictor: SAM2VideoPredictor, tmp_path: Path) -> Iterator[InferenceState]:
    for index, frame in enumerate(FRAMES):
        cv2.imwrite(str(tmp_path / f"{index}.png"), frame)
    with predictor.init_state(tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def images(model: Sam2Model) -> SAM2ImagePredictor:
    made = SAM2ImagePredictor(model)
    made.set_image(FRAMES[0][..., ::-1])  # negative strides
    return made


@pytest.mark.parametrize(
    ("points", "labels"),
    [
        (torch.tensor([[34.0, 38.0]], requires_grad=True), torch.tensor([1])),
        (torch.tensor([[34.0, 38.0]], dtype=torch.bfloat16), torch.tensor([1.0])),
        ([torch.tensor([34.0, 38.0], requires_grad=True)], [torch.tensor(1)]),
        ([[np.float64(34), np.int16(38)]], np.array([True])),
        (np.array([[[34, 38]]]), [[1]]),
        (((34, 38),), (1,)),
    ],
)
def test_points_of_any_type_are_the_same_points(
    predictor: SAM2VideoPredictor, state: InferenceState, points: Any, labels: Any
) -> None:
    _, _, usual = predictor.add_new_points_or_box(state, 0, 1, points=[[34, 38]], labels=[1])
    _, _, masks = predictor.add_new_points_or_box(state, 0, 1, points=points, labels=labels)
    predictor.reset_state(state)
    _, _, fresh = predictor.add_new_points_or_box(state, 0, 1, points=points, labels=labels)
    assert masks.shape == usual.shape
    np.testing.assert_array_equal(fresh, usual)


@pytest.mark.parametrize(
    "kind", [torch.bfloat16, torch.float16, torch.float64, torch.bool, torch.uint8]
)
def test_masks_of_any_type_are_the_same_mask(
    predictor: SAM2VideoPredictor, state: InferenceState, kind: torch.dtype
) -> None:
    mask = np.zeros(FRAMES[0].shape[:2], bool)
    mask[20:60, 20:60] = True
    _, _, usual = predictor.add_new_mask(state, 0, 1, mask.astype(np.float32))
    _, _, masks = predictor.add_new_mask(state, 0, 1, torch.from_numpy(mask).to(kind))
    np.testing.assert_array_equal(masks, usual)


@pytest.mark.parametrize("mask", [np.full((8, 8), np.nan), np.full((8, 8), "a"), [[1], [1, 2]]])
def test_what_is_no_mask_is_refused(
    predictor: SAM2VideoPredictor, state: InferenceState, mask: Any
) -> None:
    with pytest.raises(PromptError, match="mask"):
        predictor.add_new_mask(state, 0, 1, mask)


@pytest.mark.parametrize("frame", [np.int64(1), np.uint8(1), torch.tensor(1), True])
def test_frame_numbers_of_any_integer_type(
    predictor: SAM2VideoPredictor, state: InferenceState, frame: Any
) -> None:
    number, _, _ = predictor.add_new_points_or_box(state, frame, 1, box=[20, 20, 60, 60])
    assert type(number) is int
    assert number == 1
    numbers = [n for n, _, _ in predictor.propagate_in_video(state, frame, np.int32(1))]
    assert numbers == [1, 2]


@pytest.mark.parametrize("frame", [1.0, np.float32(1), "1", None, [1]])
def test_other_frame_numbers_are_refused(
    predictor: SAM2VideoPredictor, state: InferenceState, frame: Any
) -> None:
    with pytest.raises(PromptError, match="give an integer"):
        predictor.add_new_points_or_box(state, frame, 1, box=[20, 20, 60, 60])
    predictor.add_new_points_or_box(state, 0, 1, box=[20, 20, 60, 60])
    if frame is not None:
        with pytest.raises(PromptError, match="give an integer"):
            next(iter(predictor.propagate_in_video(state, frame)))
    with pytest.raises(PromptError, match="give an integer"):
        next(iter(predictor.propagate_in_video(state, 0, 1.5)))  # type: ignore[arg-type]


def test_removing_what_cannot_be_an_id_is_like_an_unknown_one(
    predictor: SAM2VideoPredictor, state: InferenceState
) -> None:
    assert predictor.remove_object(state, [1])[0] == []  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="is not known"):
        predictor.remove_object(state, [1], strict=True)  # type: ignore[arg-type]


def test_a_state_answers_as_a_dictionary(state: InferenceState) -> None:
    assert "obj_ids" in state
    assert "output_dict" not in state
    assert dict(state)["num_frames"] == 3  # type: ignore[call-overload]
    assert list(state) == list(state.keys())
    assert (state.get("num_frames"), state.get("images"), state.get("images", 1)) == (3, None, 1)


def test_methods_of_tensors_that_arrays_lack_are_explained(
    predictor: SAM2VideoPredictor, state: InferenceState, images: SAM2ImagePredictor
) -> None:
    _, _, masks = predictor.add_new_points_or_box(state, 0, 1, box=[20, 20, 60, 60])
    with pytest.raises(AttributeError, match=r"no 'unsqueeze'.*output=\"torch\""):
        (masks > 0).unsqueeze(0)
    assert not hasattr(masks, "is_cuda")
    embedding = images.get_image_embedding()
    assert embedding.detach().cpu().numpy().shape == embedding.shape  # type: ignore[attr-defined]


BOX = [20.0, 20.0, 60.0, 60.0]


@pytest.mark.parametrize(
    ("box", "count"),
    [
        ([BOX], 1),
        (np.reshape(BOX, (2, 2)), 1),
        (np.reshape(BOX, (1, 1, 4)), 1),
        (np.reshape(BOX, (1, 2, 2)), 1),
        (torch.tensor(BOX, requires_grad=True), 1),
        (np.reshape([BOX, BOX], (2, 1, 4)), 2),
        (np.reshape([BOX, BOX], (2, 2, 2)), 2),
    ],
)
def test_boxes_take_every_shape_of_the_original(
    images: SAM2ImagePredictor, box: Any, count: int
) -> None:
    usual, _, _ = images.predict(box=BOX, multimask_output=False)
    masks, _, _ = images.predict(box=box, multimask_output=False)
    assert masks.shape == (usual.shape if count == 1 else (count, *usual.shape))
    np.testing.assert_array_equal(masks.reshape(count, -1)[0], usual.ravel())


@pytest.mark.parametrize("box", [np.zeros((0, 4)), [1, 2, 3], np.zeros((2, 3)), [[1, 2], [3]]])
def test_other_boxes_are_refused(images: SAM2ImagePredictor, box: Any) -> None:
    with pytest.raises(PromptError, match="box"):
        images.predict(box=box)


@pytest.mark.parametrize("value", [10**400, 1e300, np.inf, "a", None, 1j])
def test_numbers_that_no_pixel_has_are_refused(images: SAM2ImagePredictor, value: Any) -> None:
    with pytest.raises(PromptError, match="points"):
        images.predict([[value, 1]], [1])


MAKE: dict[str, Callable[[Sam2Model], Any]] = {
    "tracker": lambda _: VideoTracker("nano", threads=1),
    "segmenter": lambda _: ImageSegmenter("nano", threads=1),
    "video predictor": SAM2VideoPredictor,
    "image predictor": SAM2ImagePredictor,
    "model": lambda model: model,
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE.keys())
@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.deepcopy])
def test_what_holds_a_session_is_not_copied(
    model: Sam2Model, make: Callable[[Sam2Model], Any], duplicate: Callable[[Any], Any]
) -> None:
    with pytest.raises(Sam2EdgeError, match="cannot be copied or pickled; make one of its own"):
        duplicate(make(model))


def test_a_state_and_a_tracker_are_not_copied_in_part(state: InferenceState) -> None:
    for thing in (state, VideoTracker("nano", threads=1)):
        with pytest.raises(Sam2EdgeError, match="cannot be copied"):
            copy.copy(thing)


@pytest.mark.parametrize("value", [2.5, "3", [1]])
def test_counts_are_integers(value: Any) -> None:
    with pytest.raises(Sam2EdgeError, match="give 1 or more, as an integer"):
        VideoTracker("nano", max_cond_frames=value)


def test_a_folder_of_several_sizes_has_the_size_of_its_last_image(
    predictor: SAM2VideoPredictor, tmp_path: Path
) -> None:
    for index, size in enumerate([(64, 48), (32, 80), (96, 40)]):
        cv2.imwrite(str(tmp_path / f"{index}.jpg"), cv2.resize(FRAMES[0], size))
    with predictor.init_state(tmp_path) as state:
        assert (state["video_width"], state["video_height"]) == (96, 40)
        predictor.add_new_points_or_box(state, 0, 1, box=[5, 5, 30, 30])
        shapes = {masks.shape for _, _, masks in predictor.propagate_in_video(state)}
        assert shapes == {(1, 1, 40, 96)}
