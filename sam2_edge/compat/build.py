"""The original's builders, with its argument names and defaults, over bundles."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sam2_edge.compat.checkpoint import find_bundle
from sam2_edge.compat.model import Sam2Model, open_model
from sam2_edge.compat.overrides import IMAGE_SIZE, STABILITY_OPTION, predictor_options
from sam2_edge.compat.video.masks import OutputKind
from sam2_edge.compat.video.predictor import SAM2VideoPredictor
from sam2_edge.errors import BundleError, Sam2EdgeError
from sam2_edge.runtime.backends import BackendName

HUB_CHECKPOINTS = {
    f"facebook/{family}-hiera-{size}": f"{family}_hiera_{size.replace('-', '_')}.pt"
    for family in ("sam2", "sam2.1")
    for size in ("tiny", "small", "base-plus", "large")
}
"""The original checkpoint in each repository of the Hugging Face Hub."""

_log = logging.getLogger(__name__)


def build_sam2(
    config_file: str | Path,
    ckpt_path: str | Path | None = None,
    device: Any = "cuda",
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,  # noqa: FBT001, FBT002 # the original's signature
    **kwargs: Any,
) -> Sam2Model:
    """A model for image predictors.

    ckpt_path, config_file: see `find_bundle`. device: "cpu", or anything else for what the bundle
    is made for, on the GPU where there is one. hydra_overrides_extra: see `predictor_options`.
    apply_postprocessing: where one mask is asked for and the single one is not stable, take the
    best of three. kwargs: without effect, as in the original.

    Raises Sam2EdgeError for what cannot be honored, and where the bundle cannot be used.
    """
    _check(mode, kwargs)
    overrides = [*hydra_overrides_extra]
    options = predictor_options(overrides, apply_postprocessing=apply_postprocessing)
    model = open_model(
        find_bundle(config_file, ckpt_path, options.get(IMAGE_SIZE)), _backend(device)
    )
    by_stability = bool(options.get(STABILITY_OPTION))
    return replace(model, dynamic_multimask_via_stability=by_stability)


def build_sam2_video_predictor(
    config_file: str | Path,
    ckpt_path: str | Path | None = None,
    device: Any = "cuda",
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,  # noqa: FBT001, FBT002 # the original's signature
    vos_optimized: bool = False,  # noqa: ARG001, FBT001, FBT002 # nothing is compiled
    *,
    output: OutputKind = "numpy",
    **kwargs: Any,
) -> SAM2VideoPredictor:
    """A video predictor.

    ckpt_path, config_file: see `find_bundle`. device: "cpu", or anything else for what the bundle
    is made for, on the GPU where there is one. hydra_overrides_extra: see `predictor_options`.
    apply_postprocessing: as in the original: holes of up to 8 pixels are filled, memory of prompted
    frames is made of binary masks, and a mask that is not stable gives way to the best of three.
    vos_optimized, kwargs: without effect. output: see `OutputKind`.

    Raises Sam2EdgeError for what cannot be honored, and where the bundle cannot be used.
    """
    _check(mode, kwargs)
    overrides = [*hydra_overrides_extra]
    options = predictor_options(overrides, apply_postprocessing=apply_postprocessing)
    bundle = find_bundle(config_file, ckpt_path, options.pop(IMAGE_SIZE, None))
    return SAM2VideoPredictor(open_model(bundle, _backend(device)), output=output, **options)


def build_sam2_hf(model_id: str, **kwargs: Any) -> Sam2Model:
    """`build_sam2` of a bundle, of "nano", or of a repository of the Hugging Face Hub."""
    return build_sam2(model_id, ckpt_path=_checkpoint(model_id), **kwargs)


def build_sam2_video_predictor_hf(model_id: str, **kwargs: Any) -> SAM2VideoPredictor:
    """`build_sam2_video_predictor` of the same."""
    return build_sam2_video_predictor(model_id, ckpt_path=_checkpoint(model_id), **kwargs)


def _checkpoint(model_id: str) -> str | None:
    """The downloaded checkpoint of a repository, None for what is a bundle."""
    if model_id not in HUB_CHECKPOINTS:
        return None
    filename = HUB_CHECKPOINTS[model_id]
    by_hand = f"sam2-edge export {model_id.removeprefix('facebook/')} --output FOLDER"
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise BundleError(
            f"{model_id} has to be downloaded and exported; install what that needs with: "
            f"pip install 'sam2_edge[export]', or run elsewhere: {by_hand}; then give that folder"
        ) from error
    try:
        return str(hf_hub_download(repo_id=model_id, filename=filename))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BundleError(
            f"{filename} of {model_id} could not be fetched from the Hugging Face Hub ({error}); "
            f"check the network, or run elsewhere: {by_hand}; then give that folder"
        ) from error


def _backend(device: Any) -> BackendName:
    """The original's default is a GPU, so that naming one is no demand for it."""
    return "cpu" if str(device) == "cpu" else "auto"


def _check(mode: str, ignored: dict[str, Any]) -> None:
    if mode != "eval":
        raise Sam2EdgeError(f"mode is {mode!r}; exported graphs cannot be trained, leave it eval")
    if ignored:
        _log.warning("without effect, as in the original: %s", ", ".join(sorted(ignored)))
