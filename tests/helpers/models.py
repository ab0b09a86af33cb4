"""A small random model with the full architecture, and frames for calibration."""

from __future__ import annotations

from pathlib import Path

import cv2
from transformers import (
    EdgeTamVideoConfig,
    EdgeTamVisionConfig,
    PreTrainedModel,
    Sam2VideoConfig,
    Sam2VisionConfig,
)
from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig

from sam2_edge.models.checkpoints import LoadedModel
from sam2_edge.models.edgetam.repvit import RepVitConfig
from sam2_edge.models.families import at_image_size, family_of
from sam2_edge.synthetic import clip as synthetic_clip

IMAGE_SIZE = 128
SEED = 6

EDGETAM_SEED = 3
"""Of weights with which the logits of EdgeTAM stay away from zero in all tests of its loop."""

MEMORY_TOKENS = 24
"""Tokens, of 64, that `tokens_bundle` attends to."""


def small_config(image_size: int = IMAGE_SIZE, *, family: str = "sam2.1") -> Sam2VideoConfig:
    """SAM 2 with every part, narrow and shallow (memory always has 64 channels in transformers)."""
    widths = [16, 32, 64, 128]
    backbone = Sam2HieraDetConfig(
        hidden_size=16,
        blocks_per_stage=[1, 2, 3, 1],
        embed_dim_per_stage=widths,
        global_attention_blocks=[4],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=widths[::-1], fpn_hidden_size=128
    )
    published_21 = family == "sam2.1"
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 128, "iou_head_hidden_dim": 64},
        memory_attention_hidden_size=128,
        memory_attention_feed_forward_hidden_size=128,
        memory_attention_num_layers=2,
        memory_encoder_hidden_size=128,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=128,
        enable_occlusion_spatial_embedding=published_21,
        enable_temporal_pos_encoding_for_object_pointers=published_21,
    )
    config._attn_implementation = "eager"
    return at_image_size(config, image_size)


def small_edgetam_config(image_size: int = 256) -> EdgeTamVideoConfig:
    """EdgeTAM with every part, narrow and shallow; its latents have their published number."""
    widths = [16, 24, 32, 48]
    vision = EdgeTamVisionConfig(
        backbone_config=RepVitConfig(widths=widths, depths=[1, 1, 2, 1]),
        backbone_channel_list=widths[::-1],
        fpn_hidden_size=128,
    )
    config = EdgeTamVideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 128, "iou_head_hidden_dim": 64},
        memory_attention_hidden_size=128,
        memory_attention_mlp_hidden_size=128,
        memory_encoder_hidden_size=128,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=128,
        enable_occlusion_spatial_embedding=False,
        enable_temporal_pos_encoding_for_object_pointers=False,
    )
    return at_image_size(config, image_size)


def loaded(model: PreTrainedModel, name: str = "small") -> LoadedModel:
    """Wrap a model in the type that `load_model` returns."""
    family = family_of(model.config).recorded_as(model.config)
    return LoadedModel(model, name, family, "test", None)


def frames_of_a_clip(folder: Path, *, frames: int = 16, seed: int = 5) -> Path:
    """Write the frames of a synthetic clip to a folder, for calibration."""
    folder.mkdir()
    for index, frame in enumerate(synthetic_clip(seed, frames=frames, split="heldout").frames):
        cv2.imwrite(str(folder / f"{index:03d}.png"), frame)
    return folder
