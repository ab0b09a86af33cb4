"""The video predictor without the original package: bounded memory and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam2_edge import Bundle, PromptError, Sam2EdgeError, SourceError
from sam2_edge.compat import Sam2Model, SAM2VideoPredictor, open_model
from sam2_edge.compat.video.spool import MEMORIES_CACHED
from sam2_edge.compat.video.state import FEATURES_CACHED
from tests.helpers.clips import moving_shapes


@pytest.fixture(scope="module")
def model(small_bundle: Bundle) -> Sam2Model:
    return open_model(small_bundle, "cpu", threads=1)


@pytest.fixture
def predictor(model: Sam2Model) -> SAM2VideoPredictor:
    return SAM2VideoPredictor(model)


def test_a_long_video_is_tracked_in_bounded_memory(
    predictor: SAM2VideoPredictor, tmp_path: Path
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    frames = 60
    for index, frame in enumerate(moving_shapes(frames).frames):
        cv2.imwrite(str(folder / f"{index}.png"), frame)
    with predictor.init_state(folder) as state:
        predictor.add_new_points_or_box(state, 0, 1, points=[[34, 38]], labels=[1])
        for _ in range(2):
            assert sum(1 for _ in predictor.propagate_in_video(state)) == frames
            assert state.features.cache_info().currsize <= FEATURES_CACHED
            assert len(state.spool._memories) <= MEMORIES_CACHED
        # Tracking again overwrites outputs that are no longer referenced.
        assert state.spool._count - len(state.spool._free) == frames
        assert state.spool._count <= frames + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no points and no box"),
        ({"points": [[1, 1]]}, "points without labels"),
        ({"points": [[1, 1]], "labels": [1, 0]}, "give one label per point"),
        ({"points": [[1, 1, 1]], "labels": [1]}, r"\[N, 2\]"),
        ({"points": [[1, 1]], "labels": [4]}, "label 4"),
        ({"points": [[np.nan, 1]], "labels": [1]}, "finite"),
        ({"points": np.zeros((0, 2)), "labels": []}, "at least one"),
        ({"box": [1, 2, 3]}, "give x1, y1, x2, y2"),
        ({"box": [1, 2, 3, 4], "clear_old_points": False}, "clear_old_points=True"),
        ({"frame_idx": 6, "box": [1, 2, 3, 4]}, "frames 0 to 5"),
        ({"obj_id": [1], "box": [1, 2, 3, 4]}, "object id"),
    ],
)
def test_an_invalid_prompt_leaves_the_state_unchanged(
    predictor: SAM2VideoPredictor, clip_folder: Path, arguments: dict[str, Any], message: str
) -> None:
    state = predictor.init_state(str(clip_folder))
    with pytest.raises(PromptError, match=message):
        predictor.add_new_points_or_box(state, **{"frame_idx": 0, "obj_id": 1, **arguments})
    assert state["obj_ids"] == []
    assert state.spool._count == 0


def test_calls_in_the_wrong_order_are_errors(
    predictor: SAM2VideoPredictor, clip_folder: Path
) -> None:
    state = predictor.init_state(clip_folder)
    with pytest.raises(PromptError, match="no object has been prompted"):
        next(iter(predictor.propagate_in_video(state)))
    with pytest.raises(PromptError, match="not known; known are: none"):
        predictor.clear_all_prompts_in_frame(state, 0, 1)
    with pytest.raises(PromptError, match="not known"):
        predictor.remove_object(state, 1, strict=True)
    with pytest.raises(PromptError, match=r"\[H, W\]"):
        predictor.add_new_mask(state, 0, 1, np.zeros((1, 8, 8)))
    predictor.add_new_points_or_box(state, 0, 1, box=(10, 10, 90, 90))
    predictor.add_new_points_or_box(state, 0, 2, box=(10, 10, 90, 90))
    with pytest.raises(PromptError, match="frames 0 to 5"):
        next(iter(predictor.propagate_in_video(state, start_frame_idx=-1)))
    tracking = predictor.propagate_in_video(state)
    next(iter(tracking))
    predictor.remove_object(state, 1)
    with pytest.raises(PromptError, match="removed during"):
        next(iter(tracking))
    predictor.clear_all_prompts_in_frame(state, 0, 2)
    with pytest.raises(PromptError, match="object 2 has no prompt"):
        predictor.propagate_in_video_preflight(state)


def test_the_state_has_the_entries_that_callers_read(
    predictor: SAM2VideoPredictor, clip_folder: Path
) -> None:
    state = predictor.init_state(clip_folder, offload_video_to_cpu=True, async_loading_frames=True)
    predictor.add_new_points_or_box(state, 0, 7, points=[[34, 38]], labels=[1])
    assert state["num_frames"] == 6
    assert (state["video_height"], state["video_width"]) == state.frames.size
    assert state["obj_id_to_idx"] == {7: 0}
    assert not state["tracking_has_started"]
    next(iter(predictor.propagate_in_video(state)))
    assert state["tracking_has_started"]
    predictor.reset_state(state)
    assert not state["tracking_has_started"]
    with pytest.raises(Sam2EdgeError, match="'images'"):
        state["images"]


def test_numpy_masks_have_the_methods_of_tensors(
    predictor: SAM2VideoPredictor, clip_folder: Path
) -> None:
    state = predictor.init_state(clip_folder)
    _, _, logits = predictor.add_new_points_or_box(state, 0, 7, points=[[34, 38]], labels=[1])
    mask = (logits[0] > 0.0).detach().cpu().numpy()
    assert type(mask) is np.ndarray
    assert mask.dtype == np.bool_
    assert mask.shape == (1, *state.frames.size)


@pytest.mark.parametrize(
    ("source", "message"),
    [(b"bytes", "bytes"), ("missing.mp4", "does not exist"), (".", "no images")],
)
def test_an_unreadable_video_is_rejected(
    predictor: SAM2VideoPredictor, tmp_path: Path, source: Any, message: str
) -> None:
    path = source if isinstance(source, bytes) else tmp_path / source
    with pytest.raises(SourceError, match=message):
        predictor.init_state(path)
