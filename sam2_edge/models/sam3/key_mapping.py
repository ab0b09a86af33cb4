"""Tensor names of SAM 3's checkpoints, mapped to those of transformers' `Sam3TrackerVideoModel`.

Both the original checkpoint and the published folder hold detector and tracker, which share the
backbone; the tracker has a feature pyramid of its own. The detector's other tensors are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping

import torch
from torch import Tensor

from sam2_edge.models.sam2 import key_mapping as sam2

Renames = tuple[tuple[re.Pattern[str], str], ...]


def _renames(*pairs: tuple[str, str]) -> Renames:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


# transformers 5.23 saves the tracker of both with this prefix twice, and all of the tracker alone
# with it once.
_PUBLISHED = _renames(
    (r"^(?:tracker_model\.)+", ""),
    (r"^detector_model\.vision_encoder\.backbone\.", "vision_encoder.backbone."),
    (r"^tracker_neck\.", "vision_encoder.neck."),
)

_TRUNK, _NECK = "detector.backbone.vision_backbone.trunk.", "vision_encoder.neck.fpn_layers."

# The backbone's norms are numbered as in SAM 2, whose mapping renames them.
_VISION = _renames(
    (rf"^{re.escape(_TRUNK)}", "vision_encoder.backbone."),
    (r"\.backbone\.pos_embed$", ".backbone.embeddings.position_embeddings"),
    (r"\.backbone\.patch_embed\.proj\.", ".backbone.embeddings.patch_embeddings.projection."),
    (r"\.backbone\.ln_pre\.", ".backbone.layer_norm."),
    (r"\.backbone\.blocks\.(\d+)\.attn\.proj\.", r".backbone.layers.\1.attention.o_proj."),
    (r"\.backbone\.blocks\.(\d+)\.attn\.", r".backbone.layers.\1.attention."),
    (r"\.backbone\.blocks\.", ".backbone.layers."),
    (r"^detector\.backbone\.vision_backbone\.sam2_convs\.", _NECK),
    (r"(fpn_layers\.\d+)\.dconv_2x2(?:_0)?\.", r"\1.scale_layers.0."),
    (r"(fpn_layers\.\d+)\.dconv_2x2_1\.", r"\1.scale_layers.2."),
    (r"(fpn_layers\.\d+)\.conv_1x1\.", r"\1.proj1."),
    (r"(fpn_layers\.\d+)\.conv_3x3\.", r"\1.proj2."),
)

# From the tracker's names to those of SAM 2.
_TRACKER = _renames(
    (r"^tracker\.", ""),
    (r"^transformer\.encoder\.", "memory_attention."),
    (r"^maskmem_backbone\.", "memory_encoder."),
    (r"^(sam_mask_decoder\.transformer\.layers\.\d+\.mlp)\.lin1\.", r"\1.layers.0."),
    (r"^(sam_mask_decoder\.transformer\.layers\.\d+\.mlp)\.lin2\.", r"\1.layers.1."),
)

_JOINT = re.compile(r"^vision_encoder\.backbone\.layers\.\d+\.attention\.(qkv)\.(?:weight|bias)$")
_POSITIONS = "vision_encoder.backbone.embeddings.position_embeddings"
_ROTARY = ".attention.freqs_cis"


def recognize(names: Container[str]) -> bool:
    """Whether an original checkpoint with tensors of these names is SAM 3's."""
    return "tracker.maskmem_tpos_enc" in names and _TRUNK + "pos_embed" in names


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A folder's tensors, of detector and tracker or of the tracker alone.

    Unknown names pass unchanged, so that a strict load reports them.

    Raises:
        CheckpointError: Two tensors have one name.
    """
    renamed = sam2.rename_all(state, lambda name: _rename(name, _PUBLISHED))
    return {name: t for name, t in renamed.items() if not name.startswith("detector_model.")}


def from_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An original state dict.

    The class token has no place in the picture: its position is dropped. So are the rotary
    encodings, which follow from the configuration. Unknown names pass unchanged.

    Raises:
        CheckpointError: The point embeddings are not numbered 0 to 3, or two tensors have one name.
    """
    renamed = sam2.rename_all(state, lambda name: _rename(name, _VISION + _TRACKER))
    renamed = {
        name: tensor
        for name, tensor in renamed.items()
        if not name.startswith("detector.") and not name.endswith(_ROTARY)
    }
    if (positions := renamed.get(_POSITIONS)) is not None and positions.ndim == 3:
        renamed[_POSITIONS] = positions[:, 1:]
    return sam2.from_original(_divide(renamed))


def _rename(name: str, renames: Renames) -> str:
    for pattern, replacement in renames:
        name = pattern.sub(replacement, name)
    return name


def _divide(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Joint projections [3C, ...] of queries, keys and values as three of [C, ...]."""
    divided = dict(state)
    for name, tensor in state.items():
        match = _JOINT.match(name)
        if match and tensor.ndim and len(tensor) % 3 == 0:
            before, after = name[: match.start(1)], name[match.end(1) :]
            names = [f"{before}{letter}_proj{after}" for letter in "qkv"]
            if not state.keys() & set(names):
                divided.update(zip(names, torch.chunk(divided.pop(name), 3), strict=True))
    return divided
