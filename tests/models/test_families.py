"""The table of families: what users name is found, and EdgeTAM loads from every kind of file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import EdgeTamVideoModel

from sam2_edge.errors import CheckpointError
from sam2_edge.models.checkpoints import load_folder, load_model
from sam2_edge.models.edgetam.config import published_config
from sam2_edge.models.edgetam.repvit import PUBLISHED_ARGUMENTS
from sam2_edge.models.families import (
    FAMILIES,
    VARIANTS,
    family_of_type,
    find_variant,
    recognize_variant,
)
from tests.models.test_checkpoints import ORIGINAL


def test_every_variant_is_found_by_its_name_and_by_its_repository() -> None:
    assert len(VARIANTS) == sum(len(family.variants) for family in FAMILIES)
    for variant in VARIANTS.values():
        assert find_variant(variant.name) is find_variant(variant.hub_id) is variant
    assert find_variant("facebook/edgetam") is None


def test_a_folder_of_another_kind_is_refused_with_the_known_kinds() -> None:
    with pytest.raises(CheckpointError, match=r"model_type 'bert'.* sam2_video, .*edgetam_video"):
        family_of_type("bert")


def test_the_original_edgetam_checkpoint_maps_completely() -> None:
    shapes = ORIGINAL["edgetam"]
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
        own = EdgeTamVideoModel(published_config(1024)).state_dict()
    variant = recognize_variant(shapes)
    renamed = FAMILIES[1].from_original(state)
    assert variant.name == "edgetam"
    assert {n: t.shape for n, t in renamed.items()} == {n: t.shape for n, t in own.items()}


def test_the_original_edgetam_checkpoint_loads_tensor_for_tensor(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.tensor(7) if name.endswith("num_batches_tracked") else _drawn(shape, generator)
        for name, shape in ORIGINAL["edgetam"].items()
    }
    torch.save({"model": state}, tmp_path / "edgetam.pt")

    model = load_model(str(tmp_path / "edgetam.pt")).model

    assert model.config.image_size == 1024
    kv = state["spatial_perceiver.layers.1.self_attn.to_kv.weight"]
    attention = model.spatial_perceiver.layers[1].self_attention
    assert torch.equal(torch.cat([attention.k_proj.weight, attention.v_proj.weight]), kv)
    stem = model.vision_encoder.backbone.timm_model.stem.conv1.c.weight
    assert torch.equal(stem, state["image_encoder.trunk.body.stem.conv1.c.weight"])
    del state["spatial_perceiver.latents"]
    torch.save({"model": state}, tmp_path / "edgetam.pt")
    with pytest.raises(CheckpointError, match="1 missing: spatial_perceiver.latents_1d"):
        load_model("edgetam", checkpoint=tmp_path / "edgetam.pt")


def _drawn(shape: list[int], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


def _save_as_published(model: EdgeTamVideoModel, folder: Path, backbone: dict[str, Any]) -> None:
    """Write a folder as transformers does for a backbone of timm."""
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["backbone_config"] = backbone
    (folder / "config.json").write_text(json.dumps(config))


def test_a_published_folder_loads_without_timm(tmp_path: Path) -> None:
    model = load_model("edgetam", random_seed=3, image_size=256).model
    backbone = {
        "model_type": "timm_wrapper",
        "architecture": "repvit_m1",
        "model_args": PUBLISHED_ARGUMENTS,
    }
    _save_as_published(model, tmp_path, backbone)

    loaded = load_folder(tmp_path)

    assert loaded.family == "edgetam"
    assert not loaded.model.config.enable_occlusion_spatial_embedding
    want = model.state_dict()
    got = loaded.model.state_dict()
    assert got.keys() == want.keys()
    weights = [name for name in want if not name.endswith("num_batches_tracked")]
    assert all(torch.equal(got[name], want[name]) for name in weights)


def test_a_published_folder_with_another_backbone_is_refused(tmp_path: Path) -> None:
    model = load_model("edgetam", random_seed=3, image_size=256).model
    _save_as_published(model, tmp_path, {"model_type": "timm_wrapper", "architecture": "repvit_m3"})
    with pytest.raises(CheckpointError, match="the backbone is repvit_m3; .*repvit_m1 only"):
        load_folder(tmp_path)
