"""Tensor names of Meta's original SAM 2 checkpoints, mapped to transformers' names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sam2_edge.errors import CheckpointError

_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
        (r"^no_mem_embed$", "no_memory_embedding"),
        (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
        (r"^no_obj_ptr$", "no_object_pointer"),
        (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
        (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
        (r"^obj_ptr_proj\.", "object_pointer_proj."),
        (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
        (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
        (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
        (r"^sam_prompt_encoder\.", "prompt_encoder."),
        (
            r"\.pe_layer\.positional_encoding_gaussian_matrix$",
            ".shared_embedding.positional_embedding",
        ),
        (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
        (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
        (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
        (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
        (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
        (r"^sam_mask_decoder\.", "mask_decoder."),
        (r"\.output_upscaling\.0\.", ".upscale_conv1."),
        (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
        (r"\.output_upscaling\.3\.", ".upscale_conv2."),
        (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
        (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
        (r"\.pix_feat_proj\.", ".feature_projection."),
        (r"\.fuser\.", ".memory_fuser."),
        (r"\.gamma$", ".scale"),
        (r"\.dwconv\.", ".depthwise_conv."),
        (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
        (r"\.out_proj\.", ".o_proj."),
        (r"\.norm(\d?)\.", r".layer_norm\1."),
    )
)

# Perceptrons of two layers (image encoder, decoder's transformer) and of three.
_MLP_OF_TWO = re.compile(r"\.mlp\.layers\.([01])\.")
_MLP_OF_THREE = re.compile(
    r"((?:output_hypernetworks_mlps\.\d|iou_prediction_head|pred_obj_score_head"
    r"|object_pointer_proj))\.layers\.([012])\."
)
_DOWNSAMPLER = re.compile(r"\.mask_downsampler\.encoder\.(\d+)\.")
POINT = re.compile(r"^sam_prompt_encoder\.point_embeddings\.(\d)\.weight$")
_FREQUENCIES = "prompt_encoder.shared_embedding.positional_embedding"
_IMAGE_FREQUENCIES = "shared_image_embedding.positional_embedding"
POINT_TABLE = "prompt_encoder.point_embed.weight"


def from_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An original state dict under transformers' names.

    The four point embeddings become one table, and the matrix of positional frequencies is stored
    twice. Unknown names pass unchanged, so that a strict load reports them.

    Raises:
        CheckpointError: The point embeddings are not numbered 0 to 3, or two tensors have one name.
    """
    last_downsampler = max(
        (int(m.group(1)) for name in state if (m := _DOWNSAMPLER.search(name))), default=0
    )
    points = {int(m.group(1)): t for name, t in state.items() if (m := POINT.match(name))}
    others = {name: t for name, t in state.items() if not POINT.match(name)}
    renamed = rename_all(others, lambda name: rename(name, last_downsampler))
    shapes = {tuple(tensor.shape) for tensor in points.values()}
    if sorted(points) != [0, 1, 2, 3] or [len(shape) for shape in shapes] != [2]:
        raise CheckpointError(
            f"the checkpoint has point embeddings {sorted(points)} of shapes {sorted(shapes)}, "
            "SAM 2 has 0, 1, 2, 3 of one shape; give an original checkpoint"
        )
    renamed[POINT_TABLE] = torch.cat([points[i] for i in range(4)])
    if _FREQUENCIES in renamed:
        renamed[_IMAGE_FREQUENCIES] = renamed[_FREQUENCIES]
    return renamed


def rename_all(state: Mapping[str, Tensor], new_name: Callable[[str], str]) -> dict[str, Tensor]:
    """The same tensors under new names.

    Raises:
        CheckpointError: Two tensors get one name.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        new = new_name(name)
        if new in renamed:
            raise CheckpointError(
                f"the checkpoint holds {new} twice, once as {name}; give an original checkpoint"
            )
        renamed[new] = tensor
    return renamed


def rename(name: str, last_downsampler: int = 12) -> str:
    """One tensor's name; `last_downsampler` is the index of the mask downsampler's last layer."""
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    name = _MLP_OF_TWO.sub(lambda m: f".mlp.{('proj_in', 'proj_out')[int(m.group(1))]}.", name)
    name = _MLP_OF_THREE.sub(
        lambda m: f"{m.group(1)}.{('proj_in', 'layers.0', 'proj_out')[int(m.group(2))]}.", name
    )
    return _DOWNSAMPLER.sub(lambda m: _downsampler_layer(int(m.group(1)), last_downsampler), name)


def _downsampler_layer(index: int, last: int) -> str:
    """Layers of the mask downsampler come in threes: convolution, norm, activation."""
    if index == last:
        return ".mask_downsampler.final_conv."
    kind = "conv" if index % 3 == 0 else "layer_norm"
    return f".mask_downsampler.layers.{index // 3}.{kind}."
