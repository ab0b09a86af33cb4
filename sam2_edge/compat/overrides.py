"""Hydra overrides of the original's builders, as far as exported graphs leave them open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sam2_edge.compat.checkpoint import ORIGINAL_IMAGE_SIZE
from sam2_edge.errors import Sam2EdgeError


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("give true or false")
    return text.lower() == "true"


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError("give a whole number") from error


OPTIONS: dict[str, Callable[[str], Any]] = {
    "non_overlap_masks": _boolean,
    "clear_non_cond_mem_around_input": _boolean,
    "add_all_frames_to_correct_as_cond": _boolean,
    "binarize_mask_from_pts_for_mem_enc": _boolean,
    "fill_hole_area": _integer,
    "max_cond_frames_in_attn": _integer,
    "memory_temporal_stride_for_eval": _integer,
    "image_size": _integer,
    "sam_mask_decoder_extra_args.dynamic_multimask_via_stability": _boolean,
}
"""What can be set below `model.`, and how values are parsed."""

_STRIDE = 16
"""Pixels per cell of the embedding in all published configurations."""

_FIXED = {
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_delta": 0.05,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh": 0.98,
}
"""Constants in the graphs, which cannot have another value."""

_GRIDS = frozenset(
    {
        "memory_attention.layer.self_attention.feat_sizes",
        "memory_attention.layer.cross_attention.feat_sizes",
        "memory_attention.layer.cross_attention.q_sizes",
    }
)
"""What the original needs set beside `image_size`: the sides of the embedding in cells."""

POSTPROCESSING = (
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
    "++model.binarize_mask_from_pts_for_mem_enc=true",
    "++model.fill_hole_area=8",
)
"""Overrides that `apply_postprocessing` appends, as in the original."""


def predictor_options(overrides: Sequence[str], *, apply_postprocessing: bool) -> dict[str, Any]:
    """Parse overrides such as "++model.fill_hole_area=4"; a later one replaces an earlier one.

    Returns:
        Keyword arguments of `SAM2VideoPredictor`, and `image_size` if it is given.

    Raises:
        Sam2EdgeError: For an override that cannot be honored.
    """
    options: dict[str, Any] = {}
    grids: dict[str, str] = {}
    for override in (*overrides, *(POSTPROCESSING if apply_postprocessing else ())):
        key, equals, text = override.lstrip("+").partition("=")
        name, value = key.removeprefix("model."), text.strip()
        if not equals or name == key or name not in {*OPTIONS, *_FIXED, *_GRIDS}:
            raise Sam2EdgeError(
                f"the override {override!r} cannot be honored: the graphs are already exported. "
                f"Leave it out; these can be set below model.: {', '.join(OPTIONS)}"
            )
        if name in _GRIDS:
            grids[override] = value
            continue
        if name in _FIXED:
            if value != str(_FIXED[name]):
                raise Sam2EdgeError(
                    f"{override}: exported graphs have {_FIXED[name]}; leave it out"
                )
            continue
        try:
            options[name.rpartition(".")[2]] = OPTIONS[name](value)
        except ValueError as error:
            raise Sam2EdgeError(f"{override}: {error}") from error
    _check_grids(grids, options.get("image_size", ORIGINAL_IMAGE_SIZE))
    return options


def _check_grids(grids: Mapping[str, str], image_size: int) -> None:
    """Refuse overrides whose values are not the sides of the embedding at this image size."""
    cells = image_size // _STRIDE
    for override, value in grids.items():
        if value.replace(" ", "") != f"[{cells},{cells}]":
            raise Sam2EdgeError(
                f"{override}: with images of {image_size} pixels this is [{cells},{cells}]; give "
                "that, or leave it out"
            )
