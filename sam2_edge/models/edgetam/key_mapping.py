"""Tensor names of the original EdgeTAM checkpoint, mapped to transformers' names."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping

import torch
from torch import Tensor

from sam2_edge.models.sam2 import key_mapping as sam2

BACKBONE = "vision_encoder.backbone.timm_model."
"""What transformers puts before the names of timm's backbone."""

_PERCEIVER_LAYER = r"^(spatial_perceiver\.layers\.\d+\.)"

# Applied to what the mapping of SAM 2 leaves: its renaming of norms has been done.
_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^vision_encoder\.backbone\.body\.", BACKBONE),
        (r"^(memory_attention\.layers\.\d+\.)linear1\.", r"\1mlp.up_proj."),
        (r"^(memory_attention\.layers\.\d+\.)linear2\.", r"\1mlp.down_proj."),
        (r"^spatial_perceiver\.latents$", "spatial_perceiver.latents_1d"),
        (_PERCEIVER_LAYER + r"attn\.norm_x\.", r"\1layer_norm_input."),
        (_PERCEIVER_LAYER + r"attn\.norm_latents\.", r"\1layer_norm_latents."),
        (_PERCEIVER_LAYER + r"self_attn\.layer_norm\.", r"\1layer_norm_self."),
        (_PERCEIVER_LAYER + r"attn\.to_([qkv])\.", r"\1cross_attention.\2_proj."),
        (_PERCEIVER_LAYER + r"attn\.to_out\.", r"\1cross_attention.o_proj."),
        (_PERCEIVER_LAYER + r"self_attn\.to_([qkv])\.", r"\1self_attention.\2_proj."),
        (_PERCEIVER_LAYER + r"self_attn\.to_out\.", r"\1self_attention.o_proj."),
        (_PERCEIVER_LAYER + r"(self_)?ff\.0\.", r"\1\2mlp.layer_norm."),
        (_PERCEIVER_LAYER + r"(self_)?ff\.1\.", r"\1\2mlp.up_proj."),
        (_PERCEIVER_LAYER + r"(self_)?ff\.3\.", r"\1\2mlp.down_proj."),
    )
)

_KEYS_AND_VALUES = re.compile(r"^spatial_perceiver\.layers\.\d+\.(?:self_)?attn\.to_(kv)\.weight$")


def recognize(names: Container[str]) -> bool:
    """Whether an original checkpoint with tensors of these names is EdgeTAM's."""
    return (
        "spatial_perceiver.latents_2d" in names
        and "image_encoder.trunk.body.stem.conv1.c.weight" in names
    )


def from_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An original state dict under the names of transformers' `EdgeTamVideoModel`.

    The perceiver's joint projections are divided into keys and values; the rest is as in SAM 2.
    Unknown names pass unchanged, so that a strict load reports them.

    Raises:
        CheckpointError: The point embeddings are not numbered 0 to 3, or two tensors have one name.
    """
    return sam2.rename_all(sam2.from_original(_divide_keys_and_values(state)), _rename)


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def _divide_keys_and_values(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Joint projections [2K, C] of keys and values as two of [K, C]."""
    divided = dict(state)
    for name, tensor in state.items():
        match = _KEYS_AND_VALUES.match(name)
        if match and tensor.ndim == 2 and len(tensor) % 2 == 0:
            before, after = name[: match.start(1)], name[match.end(1) :]
            both = (f"{before}k{after}", f"{before}v{after}")
            if not state.keys() & both:
                divided.update(zip(both, torch.chunk(divided.pop(name), 2), strict=True))
    return divided
