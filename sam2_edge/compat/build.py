"""The original's builders, with its argument names and defaults, over bundles."""
# ruff: noqa: FBT001, FBT002 - booleans are positional in the original's signatures

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sam2_edge.compat.checkpoint import hub_checkpoint
from sam2_edge.compat.model import Sam2Model, build_model
from sam2_edge.compat.video.masks import OutputKind
from sam2_edge.compat.video.predictor import SAM2VideoPredictor


def build_sam2(
    config_file: str | Path,
    ckpt_path: str | Path | None = None,
    device: Any = "cuda",
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    **kwargs: Any,
) -> Sam2Model:
    """Build a model for image predictors.

    Args:
        config_file: Name of the original's configuration file, or the bundle if there is no
            `ckpt_path`.
        ckpt_path: A bundle, "nano", or an original .pt file, which is exported once to a folder
            beside it.
        device: "cpu"; anything else runs on the bundle's own backend, on the GPU if there is one.
        mode: "eval".
        hydra_overrides_extra: Overrides such as "++model.fill_hole_area=4".
        apply_postprocessing: Whether to take the best of three masks where one is requested and
            the single one is unstable.
        **kwargs: Ignored, as in the original.

    Raises:
        Sam2EdgeError: For arguments that exported graphs cannot honor.
        BundleError: If there is no such bundle.
        CheckpointError: If a checkpoint cannot be read.
        ExportError: If it cannot be exported.
        BackendError: If the backend is missing or cannot run the bundle.
    """
    model, _ = build_model(
        config_file, ckpt_path, device, mode, hydra_overrides_extra, apply_postprocessing, **kwargs
    )
    return model


def build_sam2_video_predictor(
    config_file: str | Path,
    ckpt_path: str | Path | None = None,
    device: Any = "cuda",
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,  # noqa: ARG001 - nothing is compiled
    *,
    output: OutputKind = "numpy",
    **kwargs: Any,
) -> SAM2VideoPredictor:
    """Build a video predictor. Other arguments and errors are those of `build_sam2`.

    Args:
        apply_postprocessing: Whether to fill holes of up to 8 pixels, to make memory of prompted
            frames from binary masks, and to replace unstable masks with the best of three.
        vos_optimized: Ignored.
        output: What masks are returned as; see `OutputKind`.
    """
    model, options = build_model(
        config_file, ckpt_path, device, mode, hydra_overrides_extra, apply_postprocessing, **kwargs
    )
    return SAM2VideoPredictor(model, output=output, **options)


def build_sam2_hf(model_id: str, **kwargs: Any) -> Sam2Model:
    """Call `build_sam2` for a bundle, "nano", or a repository of the Hugging Face Hub."""
    return build_sam2(model_id, hub_checkpoint(model_id), **kwargs)


def build_sam2_video_predictor_hf(model_id: str, **kwargs: Any) -> SAM2VideoPredictor:
    """Call `SAM2VideoPredictor.from_pretrained`."""
    return SAM2VideoPredictor.from_pretrained(model_id, **kwargs)
