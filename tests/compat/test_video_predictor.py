"""The original's video API without the original: bounded memory, sources, errors, builders."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import sam2_edge.compat
from sam2_edge import Bundle, PromptError, Sam2EdgeError, SourceError
from sam2_edge.bundle.contract import Geometry
from sam2_edge.compat import (
    Sam2Model,
    SAM2VideoPredictor,
    build_sam2,
    build_sam2_hf,
    build_sam2_video_predictor,
    open_model,
)
from sam2_edge.compat.overrides import predictor_options
from sam2_edge.compat.video.frames import LOOKBACK, open_frames
from sam2_edge.compat.video.spool import MEMORIES_CACHED, Spool
from sam2_edge.compat.video.state import FEATURES_KEPT
from sam2_edge.errors import BundleError
from tests.helpers.clips import moving_shapes
from tests.helpers.interpreter import run_python_without_heavy
from tests.helpers.models import IMAGE_SIZE

CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"


@pytest.fixture(scope="module")
def model(small_bundle: Bundle) -> Sam2Model:
    return open_model(small_bundle, "cpu", threads=1)


@pytest.fixture
def predictor(model: Sam2Model) -> SAM2VideoPredictor:
    return SAM2VideoPredictor(model)


def write_video(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (96, 64))
    for index in range(frames):
        picture = np.full((64, 96, 3), 4 * index, np.uint8)
        writer.write(cv2.putText(picture, str(index), (9, 40), 0, 1, (255, 255, 255)))
    writer.release()
    return path


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
            assert state.features_kept <= FEATURES_KEPT
            assert len(state.spool._memories) <= MEMORIES_CACHED
        # Tracking again writes over what is no longer held.
        assert state.spool.in_use == frames
        assert state.spool.records <= frames + 1


def test_records_go_when_nobody_holds_them_and_the_file_has_no_name(tmp_path: Path) -> None:
    geometry = Geometry(image_size=64, hidden=8, memory_channels=4)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(16, 16)).astype(np.float32)
    pointer, memory = np.arange(8, dtype=np.float32), np.full((4, 4, 4), 1.5, np.float32)
    spool = Spool(geometry, "bfloat16")
    outputs = [spool.add(logits + i, pointer, float(i)) for i in range(MEMORIES_CACHED + 4)]
    for output in outputs:
        output.remember(memory * output.object_score)
    for i, output in enumerate(outputs):
        np.testing.assert_array_equal(output.logits, logits + i)
        np.testing.assert_array_equal(output.pointer, pointer)
        np.testing.assert_array_equal(output.memory, memory * i)
    del output, outputs[:10]
    assert spool.in_use == MEMORIES_CACHED - 6
    spool.add(logits, pointer, 0.0)
    assert spool.records == MEMORIES_CACHED + 4
    assert not list(tmp_path.iterdir())


def test_frames_of_a_video_come_in_any_order(tmp_path: Path) -> None:
    count = 3 * LOOKBACK
    frames = open_frames(write_video(tmp_path / "clip.mp4", count), 32)
    assert len(frames) == count
    assert frames.size == (64, 96)
    forward = [frames.image(i).copy() for i in range(count)]
    assert all((a != b).any() for a, b in pairwise(forward))
    for index in [*reversed(range(count)), *np.random.default_rng(0).permutation(count)]:
        np.testing.assert_array_equal(frames.image(int(index)), forward[int(index)])


def test_a_video_without_usable_times_is_decoded_from_its_start(tmp_path: Path) -> None:
    frames = open_frames(write_video(tmp_path / "clip.mp4", 40), 32)
    forward = [frames.image(i).copy() for i in range(40)]
    frames._numbers = {}
    for index in (30, 3, 0, 39):
        np.testing.assert_array_equal(frames.image(index), forward[index])


def test_of_a_folder_with_jpegs_only_these_are_frames(tmp_path: Path) -> None:
    for name in ("10.jpg", "9.jpg", "9.png", "mask.png"):
        shade = int(name.split(".")[0]) if name[0].isdigit() else 255
        cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), shade, np.uint8))
    frames = open_frames(tmp_path, 32)
    assert [int(frames.image(i).mean().round()) for i in range(len(frames))] == [9, 10]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no points and no box"),
        ({"points": [[1, 1]]}, "together"),
        ({"points": [[1, 1]], "labels": [1, 0]}, "give one each"),
        ({"points": [[1, 1, 1]], "labels": [1]}, r"\[N, 2\]"),
        ({"points": [[1, 1]], "labels": [4]}, "label 4"),
        ({"points": [[np.nan, 1]], "labels": [1]}, "finite"),
        ({"points": np.zeros((0, 2)), "labels": []}, "at least one"),
        ({"box": [1, 2, 3]}, "x1, y1, x2, y2"),
        ({"box": [1, 2, 3, 4], "clear_old_points": False}, "clear_old_points=True"),
        ({"frame_idx": 6, "box": [1, 2, 3, 4]}, "frames 0 to 5"),
        ({"obj_id": [1], "box": [1, 2, 3, 4]}, "object id"),
    ],
)
def test_a_bad_prompt_is_one_error_and_changes_nothing(
    predictor: SAM2VideoPredictor, clip_folder: Path, arguments: dict[str, Any], message: str
) -> None:
    state = predictor.init_state(str(clip_folder))
    with pytest.raises(PromptError, match=message):
        predictor.add_new_points_or_box(state, **{"frame_idx": 0, "obj_id": 1, **arguments})
    assert state["obj_ids"] == []
    assert state.spool.records == 0


def test_calls_out_of_turn_are_errors(predictor: SAM2VideoPredictor, clip_folder: Path) -> None:
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
    with pytest.raises(PromptError, match="removed while"):
        next(iter(tracking))
    predictor.clear_all_prompts_in_frame(state, 0, 2)
    with pytest.raises(PromptError, match="object 2 has no prompt"):
        predictor.propagate_in_video_preflight(state)


def test_what_code_asks_of_the_state(predictor: SAM2VideoPredictor, clip_folder: Path) -> None:
    state = predictor.init_state(clip_folder, offload_video_to_cpu=True, async_loading_frames=True)
    predictor.add_new_points_or_box(state, 0, 7, points=[[34, 38]], labels=[1])
    assert state["num_frames"] == 6
    assert (state["video_height"], state["video_width"]) == state.size
    assert state["obj_id_to_idx"] == {7: 0}
    with pytest.raises(Sam2EdgeError, match="'images'"):
        state["images"]


def test_masks_are_taken_out_as_tensors_are(
    predictor: SAM2VideoPredictor, clip_folder: Path
) -> None:
    state = predictor.init_state(clip_folder)
    _, _, logits = predictor.add_new_points_or_box(state, 0, 7, points=[[34, 38]], labels=[1])
    mask = (logits[0] > 0.0).detach().cpu().numpy()
    assert type(mask) is np.ndarray
    assert mask.dtype == np.bool_
    assert mask.shape == (1, *state.size)


@pytest.mark.parametrize(
    ("source", "message"),
    [(b"bytes", "bytes"), ("missing.mp4", "does not exist"), (".", "no images")],
)
def test_a_video_that_cannot_be_read(
    predictor: SAM2VideoPredictor, tmp_path: Path, source: Any, message: str
) -> None:
    path = source if isinstance(source, bytes) else tmp_path / source
    with pytest.raises(SourceError, match=message):
        predictor.init_state(path)


def test_builders_take_a_bundle_for_a_checkpoint(small_bundle: Bundle) -> None:
    built = build_sam2_video_predictor(CONFIG, small_bundle.path, device="cpu", unknown=1)
    assert (built.fill_hole_area, built.non_overlap_masks) == (8, False)
    assert built.binarize_mask_from_pts_for_mem_enc
    assert built.model.backend.name == "onnxruntime-cpu"
    assert build_sam2(str(small_bundle.path)).image_size == IMAGE_SIZE
    assert not build_sam2(
        small_bundle.path, apply_postprocessing=False
    ).dynamic_multimask_via_stability
    assert SAM2VideoPredictor.from_pretrained("nano").image_size == 256
    assert build_sam2_hf("nano").image_size == 256


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mode": "train"}, Sam2EdgeError, "eval"),
        ({"hydra_overrides_extra": ["++model.num_maskmem=3"]}, Sam2EdgeError, "num_maskmem=3"),
        ({"hydra_overrides_extra": ["++model.fill_hole_area=x"]}, Sam2EdgeError, "whole number"),
        ({"hydra_overrides_extra": ["++model.non_overlap_masks=2"]}, Sam2EdgeError, "true or"),
        ({"hydra_overrides_extra": ["++model.image_size=512"]}, BundleError, "--image-size 512"),
        ({"ckpt_path": None}, BundleError, "names no weights"),
        ({"ckpt_path": "missing.pt"}, BundleError, "does not exist"),
        ({"output": "jax"}, Sam2EdgeError, "numpy or torch"),
    ],
)
def test_what_a_builder_cannot_honor(
    small_bundle: Bundle, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = {"config_file": CONFIG, "ckpt_path": small_bundle.path, "device": "cpu", **arguments}
    with pytest.raises(error, match=message):
        build_sam2_video_predictor(**given)


def test_overrides_become_options_and_the_last_one_holds() -> None:
    given = ["++model.fill_hole_area=4", "+model.fill_hole_area=5", "model.non_overlap_masks=True"]
    options = predictor_options(given, apply_postprocessing=False)
    assert options == {"fill_hole_area": 5, "non_overlap_masks": True}
    assert predictor_options(given, apply_postprocessing=True)["fill_hole_area"] == 8


def test_without_pytorch(small_bundle: Bundle, clip_folder: Path, tmp_path: Path) -> None:
    """A bundle works; a checkpoint is an error that says what to do; tensors cannot be had."""
    checkpoint = tmp_path / "some.pt"
    checkpoint.write_bytes(b"x")
    run_python_without_heavy(
        "from sam2_edge.compat import build_sam2_video_predictor as build\n"
        f"predictor = build('x', {str(small_bundle.path)!r})\n"
        f"state = predictor.init_state({str(clip_folder)!r})\n"
        "predictor.add_new_points_or_box(state, 0, 1, points=[[34, 38]], labels=[1])\n"
        "assert len(list(predictor.propagate_in_video(state))) == 6\n"
        "import sam2_edge\n"
        "for given, said in (\n"
        f"    ({{'ckpt_path': {str(checkpoint)!r}}}, 'sam2-edge export'),\n"
        f"    ({{'ckpt_path': {str(small_bundle.path)!r}, 'output': 'torch'}}, 'install torch'),\n"
        "):\n"
        "    try: build('x', **given)\n"
        "    except sam2_edge.Sam2EdgeError as error: assert said in str(error), error\n"
        "    else: raise AssertionError(said)\n"
    )


def test_the_public_face_is_sorted_and_exists() -> None:
    assert sam2_edge.compat.__all__ == sorted(sam2_edge.compat.__all__)
    assert all(hasattr(sam2_edge.compat, name) for name in sam2_edge.compat.__all__)
