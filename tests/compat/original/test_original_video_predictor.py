"""The video predictor against the published one: the same calls in the same order."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sam2_edge import Bundle, CheckpointError
from sam2_edge.bundle.manifest import MANIFEST_FILE
from sam2_edge.compat import (
    Sam2Model,
    SAM2VideoPredictor,
    build_sam2,
    build_sam2_video_predictor,
    open_model,
)
from sam2_edge.compat.checkpoint import bundle_beside
from sam2_edge.compat.overrides import predictor_options
from tests.compat.original.video import (
    CONFIG,
    OVERRIDES,
    SIZE,
    PredictorPair,
    connected_components,
    keep_memory_in_float32,
    original_predictor,
    write_clip,
    write_original_checkpoint,
)

pytestmark = pytest.mark.original

FRAMES = 8
CLICK, OTHER = (34, 38, 1), (92, 75, 1)
BOX = (70, 70, 120, 120)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sam2", reason="the package sam2 1.1.0 is not installed")
    path = tmp_path_factory.mktemp("original") / "random.pt"
    write_original_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Bundle:
    """Exported by the builder, beside the checkpoint."""
    built = build_sam2_video_predictor(
        CONFIG, checkpoint, device="cpu", hydra_overrides_extra=OVERRIDES
    )
    return built.model.graphs.bundle


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Sam2Model:
    return open_model(bundle, "cpu", threads=1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "square", FRAMES)


@pytest.fixture(scope="module")
def _original(checkpoint: Path) -> Any:
    return original_predictor(checkpoint)


@pytest.fixture
def original(_original: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """With connected components, for which it otherwise needs a GPU."""
    monkeypatch.setattr("sam2.utils.misc.get_connected_components", connected_components)
    keep_memory_in_float32(_original, monkeypatch)
    return _original


@pytest.fixture
def pair(original: Any, model: Sam2Model, clip: Path) -> PredictorPair:
    return PredictorPair.of(original, default_predictor(model), clip)


def default_predictor(model: Sam2Model, **changes: Any) -> SAM2VideoPredictor:
    """Our predictor with the builder's default options."""
    options = predictor_options([], apply_postprocessing=True)
    return SAM2VideoPredictor(model, **{**options, **changes})


def change(pair: PredictorPair, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Set options of both predictors."""
    for name, value in options.items():
        assert hasattr(pair.original, name)
        monkeypatch.setattr(pair.original, name, value)
        setattr(pair.ours, name, value)


def test_clicks_on_two_frames_in_reverse_order(pair: PredictorPair) -> None:
    pair.click(6, 1, OTHER)
    pair.click(2, 1, CLICK)
    pair.click(2, 1, CLICK, (90, 90, 0))
    assert pair.propagate() == list(range(2, FRAMES))
    pair.assert_meaningful()


def test_a_correction_of_an_earlier_frame_and_tracking_again(pair: PredictorPair) -> None:
    pair.click(0, 1, CLICK)
    pair.click(0, 2, OTHER)
    pair.propagate()
    pair.click(4, 1, (60, 40, 0))
    pair.click(4, 1, (30, 30, 1), clear_old_points=False)
    pair.click(7, 2, OTHER)
    pair.propagate()
    pair.propagate(start_frame_idx=4, max_frame_num_to_track=3)
    pair.assert_meaningful()


def test_a_correction_of_a_conditioning_frame_after_tracking(pair: PredictorPair) -> None:
    pair.click(3, 1, CLICK)
    pair.propagate()
    pair.click(3, 1, CLICK, (80, 80, 0))
    pair.propagate()
    pair.assert_meaningful()


def test_reverse_and_a_correction_there(pair: PredictorPair) -> None:
    pair.click(6, 1, CLICK)
    pair.click(4, 2, OTHER)
    assert pair.propagate(start_frame_idx=7, reverse=True) == list(range(7, -1, -1))
    pair.click(2, 1, (60, 40, 0))
    pair.propagate(start_frame_idx=6, max_frame_num_to_track=4, reverse=True)
    pair.propagate()
    assert pair.propagate(start_frame_idx=0, reverse=True) == []
    pair.assert_meaningful()


def test_objects_of_any_id_added_and_removed_after_tracking_began(pair: PredictorPair) -> None:
    pair.click(0, 0, CLICK)
    pair.click(2, -7, OTHER)
    pair.propagate(max_frame_num_to_track=4)
    pair.click(3, 10**12, (50, 90, 1))
    pair.propagate(start_frame_idx=3)
    pair.click(5, -7, (20, 20, 0))
    assert pair.remove(-7) == [2, 5]
    assert pair.remove(99) == []
    pair.propagate()
    assert pair.remove(10**12, need_output=False) == []
    assert pair.remove(0) == []
    pair.click(1, 3, CLICK)
    pair.propagate()
    pair.assert_meaningful()


def test_boxes_and_points_of_every_kind(pair: PredictorPair) -> None:
    pair.call("add_new_points_or_box", 0, 1, box=BOX)
    pair.call("add_new_points_or_box", 1, 1, box=BOX, points=[[90, 90]], labels=[0])
    pair.click(1, 1, OTHER, clear_old_points=False)
    pair.click(2, 2, (0.3, 0.4, 1), (0.9, 0.9, 0), normalize_coords=False)
    pair.click(3, 2, (-20, 300, 1))
    pair.click(4, 2, (10, 10, 2), (60, 50, 3), (30, 30, -1))
    pair.call("add_new_points", 5, 3, torch.tensor([[30, 40]]), torch.tensor([1]))
    pair.propagate()
    pair.assert_meaningful()


@pytest.mark.parametrize("size", [(SIZE, SIZE), (90, 200), (300, 50)])
def test_masks_and_empty_masks(pair: PredictorPair, size: tuple[int, int]) -> None:
    mask = np.zeros(size, bool)
    mask[size[0] // 10 : size[0] // 2, size[1] // 7 : size[1] // 3] = True
    pair.call("add_new_mask", 2, 1, mask)
    pair.call("add_new_mask", 5, 2, torch.from_numpy(mask).float().flip(0))
    pair.call("add_new_mask", 7, 1, np.zeros(size, bool))
    pair.click(5, 2, OTHER)
    pair.propagate()
    pair.call("add_new_mask", 4, 1, mask)
    pair.propagate(start_frame_idx=4, max_frame_num_to_track=2, reverse=True)
    pair.assert_meaningful()


def test_prompts_cleared_and_everything_reset(pair: PredictorPair) -> None:
    pair.click(0, 1, CLICK)
    pair.click(4, 1, OTHER)
    pair.click(4, 2, OTHER)
    pair.click(6, 2, CLICK)
    pair.call("clear_all_prompts_in_frame", 6, 2)
    pair.propagate()
    pair.call("clear_all_prompts_in_frame", 4, 1)
    pair.click(4, 1, CLICK)
    pair.call("clear_all_prompts_in_frame", 4, 1)
    pair.propagate()
    pair.reset()
    pair.click(1, 1, OTHER)
    pair.propagate()
    pair.assert_meaningful()


@pytest.mark.parametrize(
    "options",
    [
        {"non_overlap_masks": True},
        {"add_all_frames_to_correct_as_cond": True},
        {"max_cond_frames_in_attn": 2},
        {"memory_temporal_stride_for_eval": 3},
        {"fill_hole_area": 200},
        {"binarize_mask_from_pts_for_mem_enc": False},
        {"clear_non_cond_mem_around_input": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options(
    pair: PredictorPair, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    # 1.1.0 calls this method but lacks it; its counterpart for all objects shows what it should do.
    def clear(state: Any, frame: int, obj: int) -> None:
        for t in range(frame - 7, frame + 8):
            state["output_dict_per_obj"][obj]["non_cond_frame_outputs"].pop(t, None)

    monkeypatch.setattr(pair.original, "_clear_obj_non_cond_mem_around_input", clear, raising=False)
    change(pair, monkeypatch, **options)
    pair.click(1, 1, CLICK)
    pair.click(1, 2, OTHER)
    pair.click(3, 1, CLICK, (90, 90, 0))
    pair.click(5, 1, OTHER)
    pair.propagate()
    pair.click(6, 1, (60, 60, 1))
    pair.propagate(start_frame_idx=7, reverse=True)
    pair.assert_meaningful()


def test_without_postprocessing(
    checkpoint: Path, model: Sam2Model, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = original_predictor(checkpoint, apply_postprocessing=False)
    keep_memory_in_float32(published, monkeypatch)
    assert predictor_options([], apply_postprocessing=False) == {}
    pair = PredictorPair.of(published, SAM2VideoPredictor(model), clip)
    pair.click(0, 1, CLICK, (90, 90, 0))
    pair.call("add_new_points_or_box", 2, 2, box=BOX)
    pair.propagate()
    pair.assert_meaningful()


@pytest.mark.usefixtures("checkpoint")
def test_postprocessing_takes_precedence_over_overrides() -> None:
    given = ["++model.fill_hole_area=3", "++model.non_overlap_masks=true"]
    published = original_predictor(hydra_overrides_extra=given)
    ours = predictor_options(given, apply_postprocessing=True)
    for name in ("fill_hole_area", "non_overlap_masks", "binarize_mask_from_pts_for_mem_enc"):
        assert ours[name] == getattr(published, name)


def test_frames_before_the_first_prompt_have_no_pointer(pair: PredictorPair) -> None:
    pair.click(6, 1, CLICK)
    assert pair.propagate(start_frame_idx=4) == list(range(4, FRAMES))
    pair.assert_meaningful()


@pytest.mark.parametrize(("height", "width", "reverse"), [(90, 200, False), (301, 77, True)])
def test_frames_of_another_size_and_a_full_memory(
    original: Any, model: Sam2Model, tmp_path: Path, height: int, width: int, reverse: bool
) -> None:
    clip = write_clip(tmp_path / "clip", 20, (height, width))
    pair = PredictorPair.of(original, default_predictor(model), clip)
    pair.click(19 if reverse else 0, 1, (width * 0.3, height * 0.3, 1))
    pair.call("add_new_points_or_box", 9, 1, box=(1, 2, width / 2, height / 2))
    pair.propagate(start_frame_idx=19 if reverse else 0, reverse=reverse)
    pair.assert_meaningful()


@pytest.mark.parametrize("seed", range(3))
def test_random_calls(pair: PredictorPair, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pair.click(int(rng.integers(FRAMES)), 1, CLICK)
    for _ in range(10):
        frame, obj = int(rng.integers(FRAMES)), int(rng.integers(1, 4))
        x, y = rng.uniform(0, SIZE, 2)
        kind = rng.choice(["click", "more", "box", "mask", "forward", "back", "clear", "remove"])
        known = obj in pair.state.tracks
        if kind == "click":
            pair.click(frame, obj, (x, y, 1))
        elif kind == "more":
            pair.click(frame, obj, (x, y, float(rng.integers(2))), clear_old_points=False)
        elif kind == "box":
            box = (x * 0.8, y * 0.8, x * 0.8 + 25, y * 0.8 + 25)
            pair.call("add_new_points_or_box", frame, obj, box=box)
        elif kind == "mask":
            mask = np.zeros((SIZE, SIZE), bool)
            mask[int(y * 0.8) : int(y * 0.8) + 30, int(x * 0.8) : int(x * 0.8) + 30] = True
            pair.call("add_new_mask", frame, obj, mask)
        elif kind == "clear" and known and len(pair.state.tracks[obj].points) > 1:
            pair.call("clear_all_prompts_in_frame", next(iter(pair.state.tracks[obj].points)), obj)
        elif kind == "remove" and known and len(pair.state.tracks) > 1:
            pair.remove(obj)
        elif kind in ("forward", "back"):
            everything = ({*t.outputs.cond, *t.pending.cond} for t in pair.state.tracks.values())
            first = [(min if kind == "forward" else max)(t) for t in everything if t]
            if len(first) == len(pair.state.tracks):
                start = (max if kind == "forward" else min)(first)
                pair.propagate(
                    start_frame_idx=start, max_frame_num_to_track=4, reverse=kind == "back"
                )
    pair.assert_meaningful()


def test_a_checkpoint_is_exported_once(checkpoint: Path, bundle: Bundle) -> None:
    assert bundle.path == bundle_beside(checkpoint, SIZE)
    assert bundle.manifest.model.name == "sam2.1-hiera-tiny"
    written = (bundle.path / MANIFEST_FILE).stat().st_mtime_ns
    reopened = build_sam2(CONFIG, str(checkpoint), "cpu", hydra_overrides_extra=OVERRIDES)
    assert reopened.graphs.bundle == bundle
    assert (bundle.path / MANIFEST_FILE).stat().st_mtime_ns == written


def test_the_bundle_of_another_checkpoint_is_not_used(bundle: Bundle, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    other.write_bytes(b"not weights")
    shutil.copytree(bundle.path, bundle_beside(other, SIZE))
    with pytest.raises(CheckpointError, match="other.pt"):
        build_sam2(CONFIG, other, "cpu", hydra_overrides_extra=OVERRIDES)
    assert (bundle_beside(other, SIZE) / MANIFEST_FILE).is_file()


def test_masks_as_tensors(original: Any, model: Sam2Model, clip: Path) -> None:
    pair = PredictorPair.of(original, default_predictor(model, output="torch"), clip)
    pair.click(0, 1, CLICK)
    _, _, masks = next(iter(pair.ours.propagate_in_video(pair.state)))
    assert isinstance(masks, torch.Tensor)
    assert masks.shape == (1, 1, SIZE, SIZE)
