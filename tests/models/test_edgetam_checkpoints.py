"""Original EdgeTAM checkpoints: every tensor has its place in transformers' model, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import EdgeTamVideoModel

from sam2_edge.errors import CheckpointError
from sam2_edge.models.checkpoints import load_model
from sam2_edge.models.edgetam.config import published_config
from sam2_edge.models.edgetam.key_mapping import BACKBONE, from_original
from sam2_edge.models.families import recognize_variant
from tests.models.test_checkpoints import ORIGINAL

NAME = "edgetam"
TO_KV = "spatial_perceiver.layers.1.attn.to_kv.weight"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Random tensors under the names and shapes of the original checkpoint."""
    generator = torch.Generator().manual_seed(0)
    return {n: torch.rand(s, generator=generator) for n, s in ORIGINAL[NAME].items()}


def test_every_tensor_maps_to_the_model_completely(state: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        own = EdgeTamVideoModel(published_config(1024)).state_dict()

    assert {n: t.shape for n, t in from_original(state).items()} == {
        n: t.shape for n, t in own.items()
    }


@pytest.mark.parametrize("name", ORIGINAL)
def test_the_variant_is_recognized_from_shapes(name: str) -> None:
    assert recognize_variant(ORIGINAL[name]).name == name


@pytest.mark.parametrize(
    ("part", "names"),
    {
        BACKBONE: {"stages_2.blocks.4.se.fc1.bias": "stages_2.blocks.4.se.fc1.bias"},
        "memory_attention.layers.1.": {
            "mlp.up_proj.bias": "linear1.bias",
            "mlp.down_proj.weight": "linear2.weight",
            "cross_attn_image.o_proj.bias": "cross_attn_image.out_proj.bias",
            "layer_norm3.weight": "norm3.weight",
        },
        "spatial_perceiver.": {
            "latents_1d": "latents",
            "latents_2d": "latents_2d",
            "layer_norm.bias": "norm.bias",
        },
        "spatial_perceiver.layers.1.": {
            "layer_norm_input.weight": "attn.norm_x.weight",
            "layer_norm_latents.weight": "attn.norm_latents.weight",
            "cross_attention.q_proj.weight": "attn.to_q.weight",
            "cross_attention.o_proj.weight": "attn.to_out.weight",
            "mlp.layer_norm.bias": "ff.0.bias",
            "mlp.up_proj.weight": "ff.1.weight",
            "mlp.down_proj.weight": "ff.3.weight",
            "layer_norm_self.bias": "self_attn.norm.bias",
            "self_attention.q_proj.weight": "self_attn.to_q.weight",
            "self_attention.o_proj.weight": "self_attn.to_out.weight",
            "self_mlp.down_proj.weight": "self_ff.3.weight",
        },
    }.items(),
)
def test_tensors_are_the_same_under_new_names(
    state: dict[str, Tensor], part: str, names: dict[str, str]
) -> None:
    renamed = from_original(state)
    original_part = part.replace(BACKBONE, "image_encoder.trunk.body.")
    for ours, theirs in names.items():
        assert torch.equal(renamed[part + ours], state[original_part + theirs]), ours


def test_keys_are_the_first_half_of_a_joint_projection(state: dict[str, Tensor]) -> None:
    renamed = from_original(state)
    for ours, theirs in (("cross_attention", "attn"), ("self_attention", "self_attn")):
        joint = state[f"spatial_perceiver.layers.0.{theirs}.to_kv.weight"]
        for part, half in (("k_proj", joint[:64]), ("v_proj", joint[64:])):
            assert torch.equal(renamed[f"spatial_perceiver.layers.0.{ours}.{part}.weight"], half)


def test_a_checkpoint_loads_by_file_and_by_name(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"model": state}, tmp_path / "edgetam.pt")
    for loaded in (
        load_model(str(tmp_path / "edgetam.pt"), image_size=256),
        load_model(NAME, checkpoint=tmp_path / "edgetam.pt", image_size=256),
    ):
        assert (loaded.name, loaded.family) == (NAME, NAME)
        own = loaded.model.state_dict()
        assert torch.equal(own["no_object_pointer"], state["no_obj_ptr"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({TO_KV: torch.zeros(128)}, f"1 unexpected: {TO_KV}"),
        ({TO_KV: torch.zeros(127, 64)}, "2 missing: .*cross_attention.k_proj"),
        ({TO_KV: torch.zeros(126, 64)}, r"k_proj.weight \[63, 64\] instead of \[64, 64\]"),
        ({TO_KV.replace("kv", "k"): torch.zeros(64, 64)}, f"unexpected: {TO_KV}"),
        (
            {"memory_attention.layers.0.mlp.up_proj.bias": torch.zeros(2048)},
            "holds memory_attention.layers.0.mlp.up_proj.bias twice",
        ),
        ({"image_encoder.trunk.body.head.weight": torch.zeros(1)}, "1 unexpected: .*head.weight"),
    ],
)
def test_tensors_that_have_no_place_are_listed(
    state: dict[str, Tensor], tmp_path: Path, change: dict[str, Tensor], message: str
) -> None:
    torch.save({"model": state | change}, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=message):
        load_model(str(tmp_path / "odd.pt"), image_size=256)
