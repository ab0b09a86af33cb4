"""Shared fixtures: a small random model of the full architecture and its bundle, built once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch
from transformers import Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig
from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig

from sam2_edge import Bundle
from sam2_edge.export import pipeline
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.models.checkpoints import LoadedModel, load_model
from sam2_edge.models.random_init import random_model
from sam2_edge.models.variants import at_image_size
from sam2_edge.synth import clip as synthetic_clip
from tests.clips import Clip, moving_shapes
from tests.kept_graphs import KeptGraphs

IMAGE_SIZE = 128
SEED = 6

# Before pytest-xdist starts its processes: the same module is then the same bytes in all of them.
os.environ.setdefault("PYTHONHASHSEED", "0")


def small_config(image_size: int = IMAGE_SIZE, *, family: str = "sam2.1") -> Sam2VideoConfig:
    """SAM 2 with every part of the real one, narrow and shallow (memory has 64 channels in
    transformers whatever the configuration says).
    """
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


def loaded(model: Sam2VideoModel, name: str = "small") -> LoadedModel:
    """A model as `load_model` gives it."""
    family = "sam2.1" if model.config.enable_occlusion_spatial_embedding else "sam2"
    return LoadedModel(model, name, family, "test", None)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """PyTorch and ONNX Runtime take turns on tiny graphs: idle threads of one that spin while the
    other works cost more than they bring.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as the runtime does: peaked attention is full of denormals


@pytest.fixture(scope="session", autouse=True)
def _graphs_exported_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """PyTorch takes most of the tests' time to trace the same few modules again and again."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    kept = KeptGraphs(folder / "kept_graphs", pipeline.export_onnx)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "export_onnx", kept.export_onnx)
        yield


@pytest.fixture(scope="session")
def small_model() -> Sam2VideoModel:
    return random_model(small_config(), SEED)


@pytest.fixture(scope="session")
def small_bundle(small_model: Sam2VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Memory rounded to bfloat16, the default."""
    return export_bundle(loaded(small_model), tmp_path_factory.mktemp("bundles") / "small")


@pytest.fixture(scope="session")
def full_bundle(small_model: Sam2VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Memory stored in full."""
    target = tmp_path_factory.mktemp("bundles") / "full"
    return export_bundle(loaded(small_model), target, memory_rounding="none")


@pytest.fixture(scope="session")
def nano_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundled model exported anew: float32 graphs, memory stored in full."""
    target = tmp_path_factory.mktemp("bundles") / "nano"
    return export_bundle(load_model("nano"), target, memory_rounding="none")


@pytest.fixture(scope="session")
def clip() -> Clip:
    return moving_shapes()


@pytest.fixture
def clip_folder(clip: Clip, tmp_path: Path) -> Path:
    """The first six frames of the clip as PNG files 0.png to 5.png."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, frame in enumerate(clip.frames[:6]):
        cv2.imwrite(str(folder / f"{index}.png"), frame)
    return folder


def frames_of_a_clip(folder: Path, *, frames: int = 16, seed: int = 5) -> Path:
    """A folder of the frames of a synthetic clip, to calibrate with."""
    folder.mkdir()
    for index, frame in enumerate(synthetic_clip(seed, frames=frames, split="heldout").frames):
        cv2.imwrite(str(folder / f"{index:03d}.png"), frame)
    return folder
