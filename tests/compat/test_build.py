"""The builders: bundles as checkpoints, overrides, and arguments that cannot be honored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sam2_edge.compat
from sam2_edge import Bundle, Sam2EdgeError
from sam2_edge.compat import (
    SAM2VideoPredictor,
    build_sam2,
    build_sam2_hf,
    build_sam2_video_predictor,
)
from sam2_edge.compat.overrides import predictor_options
from sam2_edge.errors import BundleError
from tests.helpers.interpreter import run_python_without_heavy
from tests.helpers.models import IMAGE_SIZE

CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"


def test_builders_take_a_bundle_for_a_checkpoint(small_bundle: Bundle) -> None:
    built = build_sam2_video_predictor(CONFIG, small_bundle.path, device="cpu", unknown=1)
    assert (built.fill_hole_area, built.non_overlap_masks) == (8, False)
    assert built.binarize_mask_from_pts_for_mem_enc
    assert built.model.graphs.backend.name == "onnxruntime-cpu"
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
def test_arguments_that_cannot_be_honored_are_rejected(
    small_bundle: Bundle, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = {"config_file": CONFIG, "ckpt_path": small_bundle.path, "device": "cpu", **arguments}
    with pytest.raises(error, match=message):
        build_sam2_video_predictor(**given)


GRID = "++model.memory_attention.layer.cross_attention.q_sizes"


def test_the_grid_of_an_image_size_may_be_given_as_in_the_original() -> None:
    options = predictor_options(
        [f"{GRID}=[32,32]", "++model.image_size=512"], apply_postprocessing=False
    )
    assert options == {"image_size": 512}
    with pytest.raises(Sam2EdgeError, match=r"1024 pixels this is \[64,64\]"):
        predictor_options([f"{GRID}=[32,32]"], apply_postprocessing=False)


def test_a_later_override_replaces_an_earlier_one() -> None:
    given = ["++model.fill_hole_area=4", "+model.fill_hole_area=5", "model.non_overlap_masks=True"]
    options = predictor_options(given, apply_postprocessing=False)
    assert options == {"fill_hole_area": 5, "non_overlap_masks": True}
    assert predictor_options(given, apply_postprocessing=True)["fill_hole_area"] == 8


def test_builders_work_without_pytorch(
    small_bundle: Bundle, clip_folder: Path, tmp_path: Path
) -> None:
    """A bundle works; a checkpoint and tensors are errors with a remedy."""
    checkpoint = tmp_path / "some.pt"
    checkpoint.write_bytes(b"x")
    run_python_without_heavy(
        "from sam2_edge.compat import build_sam2_video_predictor as build\n"
        f"predictor = build('x', {str(small_bundle.path)!r})\n"
        f"state = predictor.init_state({str(clip_folder)!r})\n"
        "predictor.add_new_points_or_box(state, 0, 1, points=[[34, 38]], labels=[1])\n"
        "assert len(list(predictor.propagate_in_video(state))) == 6\n"
        "import sam2_edge\n"
        "for given, remedy in (\n"
        f"    ({{'ckpt_path': {str(checkpoint)!r}}}, 'sam2-edge export'),\n"
        f"    ({{'ckpt_path': {str(small_bundle.path)!r}, 'output': 'torch'}}, 'install torch'),\n"
        "):\n"
        "    try: build('x', **given)\n"
        "    except sam2_edge.Sam2EdgeError as error: assert remedy in str(error), error\n"
        "    else: raise AssertionError(remedy)\n"
    )


def test_public_names_are_sorted_and_exist() -> None:
    assert sam2_edge.compat.__all__ == sorted(sam2_edge.compat.__all__)
    assert all(hasattr(sam2_edge.compat, name) for name in sam2_edge.compat.__all__)
