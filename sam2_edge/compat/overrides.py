"""Hydra overrides of the original's builders, as far as exported graphs leave them open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sam2_edge.errors import Sam2EdgeError

PREFIX = "model."

SWITCHES = (
    "non_overlap_masks",
    "clear_non_cond_mem_around_input",
    "add_all_frames_to_correct_as_cond",
    "binarize_mask_from_pts_for_mem_enc",
)
"""Options of `SAM2VideoPredictor` that are true or false, under the names of the configuration."""

NUMBERS = ("fill_hole_area", "max_cond_frames_in_attn", "memory_temporal_stride_for_eval")
"""Its options that are whole numbers."""

IMAGE_SIZE = "image_size"
STABILITY = "sam_mask_decoder_extra_args.dynamic_multimask_via_stability"
"""Whether the best of three masks stands in for a single one that is not stable."""

STABILITY_OPTION = "dynamic_multimask_via_stability"

_FIXED = {
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_delta": 0.05,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh": 0.98,
}
"""What the graphs hold, so that no other value can be given."""

POSTPROCESSING = ("++model.binarize_mask_from_pts_for_mem_enc=true", "++model.fill_hole_area=8")
"""What `apply_postprocessing` sets besides `STABILITY`; as in the original it has the last word."""

_WORDS = {"true": True, "false": False}


def predictor_options(overrides: Sequence[str], *, apply_postprocessing: bool) -> dict[str, Any]:
    """Options of `SAM2VideoPredictor`, and `image_size` where it is given, from overrides such as
    "++model.fill_hole_area=4"; of two for one option the later holds.

    Raises Sam2EdgeError for an override that cannot be honored.
    """
    last = [f"++model.{STABILITY}=true", *POSTPROCESSING] if apply_postprocessing else []
    options: dict[str, Any] = {}
    for override in [*overrides, *last]:
        name, value = _read(override)
        if name == STABILITY:
            options[STABILITY_OPTION] = _switch(override, value)
        elif name in SWITCHES:
            options[name] = _switch(override, value)
        elif name in NUMBERS or name == IMAGE_SIZE:
            options[name] = _number(override, value)
        elif name in _FIXED:
            if value != str(_FIXED[name]):
                raise Sam2EdgeError(
                    f"{override}: exported graphs have {_FIXED[name]}; leave it out"
                )
        else:
            raise _unknown(override)
    return options


def _read(override: str) -> tuple[str, str]:
    name, equals, value = override.partition("=")
    name = name.lstrip("+")
    if not equals or not name.startswith(PREFIX):
        raise _unknown(override)
    return name.removeprefix(PREFIX), value.strip()


def _switch(override: str, value: str) -> bool:
    if value.lower() not in _WORDS:
        raise Sam2EdgeError(f"{override}: give true or false")
    return _WORDS[value.lower()]


def _number(override: str, value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise Sam2EdgeError(f"{override}: give a whole number") from error


def _unknown(override: str) -> Sam2EdgeError:
    known = ", ".join((*SWITCHES, *NUMBERS, IMAGE_SIZE, STABILITY))
    return Sam2EdgeError(
        f"the override {override!r} cannot be honored: the graphs are exported already. Leave it "
        f"out; of model. these can be given: {known}"
    )
