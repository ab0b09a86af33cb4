"""Checkpoints of SAM 3: the original, the published folder of detector and tracker, a tracker's."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Sam3TrackerVideoModel, Sam3VideoConfig, Sam3VideoModel

from sam2_edge.errors import CheckpointError, ExportError
from sam2_edge.models.checkpoints import load_model
from sam2_edge.models.families import at_image_size, recognize_variant
from sam2_edge.models.sam3.config import config_of, published_config
from sam2_edge.models.sam3.key_mapping import from_original
from tests.helpers.sam3 import small_config

DATA = Path(__file__).parent.parent / "data" / "original_tensors.json.gz"
ORIGINAL: dict[str, list[int]] = json.loads(gzip.decompress(DATA.read_bytes()))["sam3"]
BLOCK = "trunk.blocks.7.attn."


@pytest.fixture(scope="module")
def published() -> Sam3VideoModel:
    """Detector and tracker, of which the detector is tiny."""
    tracker = small_config().to_dict()
    small = {"hidden_size": 128, "num_layers": 1, "intermediate_size": 32}
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    text |= {"vocab_size": 49408, "num_attention_heads": 2, "projection_dim": 16}
    detector: dict[str, Any] = {
        "model_type": "sam3",
        "vision_config": tracker["vision_config"],
        "text_config": {"model_type": "clip_text_model", **text},
        "geometry_encoder_config": small,
        "detr_encoder_config": small,
        "detr_decoder_config": small,
        "mask_decoder_config": {"hidden_size": 128},
    }
    return Sam3VideoModel(Sam3VideoConfig(detector_config=detector, tracker_config=tracker))


@pytest.fixture
def folder(published: Sam3VideoModel, tmp_path: Path) -> Path:
    """The folder as published: with the names that the modules have."""
    published.config.save_pretrained(tmp_path)
    state = {name: tensor.clone() for name, tensor in published.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    return tmp_path


def _assert_is_the_tracker_of(model: Sam3VideoModel, state: dict[str, Tensor]) -> None:
    parts = {
        "vision_encoder.backbone.": model.detector_model.vision_encoder.backbone,
        "vision_encoder.neck.": model.tracker_neck,
        "": model.tracker_model,
    }
    want = {prefix + n: t for prefix, part in parts.items() for n, t in part.state_dict().items()}
    assert state.keys() == want.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in want.items())


def test_the_published_folder_gives_the_tracker_with_its_own_pyramid(
    published: Sam3VideoModel, folder: Path
) -> None:
    loaded = load_model(str(folder))

    assert (loaded.family, int(loaded.model.config.image_size)) == ("sam3", 336)
    _assert_is_the_tracker_of(published, loaded.model.state_dict())


def test_folders_that_transformers_saves_give_the_same(
    published: Sam3VideoModel, folder: Path, tmp_path: Path
) -> None:
    published.save_pretrained(tmp_path / "both")
    Sam3TrackerVideoModel.from_pretrained(folder).save_pretrained(tmp_path / "tracker")

    for name in ("both", "tracker"):
        loaded = load_model(str(tmp_path / name), image_size=672)
        assert int(loaded.model.config.image_size) == 672
        _assert_is_the_tracker_of(published, loaded.model.state_dict())


def test_a_tracker_with_a_tensor_missing_and_one_too_many_is_refused(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["tracker_model.extra"] = state.pop("tracker_neck.fpn_layers.0.proj1.bias")
    save_file(state, folder / "model.safetensors")

    missing = r"1 missing: vision_encoder\.neck\.fpn_layers\.0\.proj1\.bias; 1 unexpected: extra"
    with pytest.raises(CheckpointError, match=missing):
        load_model(str(folder))


def test_the_original_checkpoint_maps_completely() -> None:
    with torch.device("meta"):
        own = Sam3TrackerVideoModel(published_config(1008)).state_dict()
        original = {name: torch.empty(shape) for name, shape in ORIGINAL.items()}
        detector = {"detector.transformer.decoder.norm.weight": torch.empty(256)}

    renamed = from_original(original | detector)

    assert {n: t.shape for n, t in renamed.items()} == {n: t.shape for n, t in own.items()}
    assert recognize_variant(ORIGINAL).name == "sam3"


def test_original_tensors_are_divided_as_in_transformers() -> None:
    prefix = "detector.backbone.vision_backbone."
    joint, positions = torch.randn(9, 3), torch.randn(1, 5, 3)
    points = {
        f"tracker.sam_prompt_encoder.point_embeddings.{i}.weight": torch.full((1, 3), float(i))
        for i in range(4)
    }

    renamed = from_original(
        {
            prefix + BLOCK + "qkv.weight": joint,
            prefix + BLOCK + "freqs_cis": torch.zeros(2, 2, dtype=torch.complex64),
            prefix + "trunk.pos_embed": positions,
            prefix + "convs.0.conv_1x1.bias": torch.ones(3),
            prefix + "sam2_convs.0.conv_1x1.bias": torch.zeros(3),
            **points,
        }
    )

    attention = "vision_encoder.backbone.layers.7.attention."
    for index, letter in enumerate("qkv"):
        part = renamed.pop(f"{attention}{letter}_proj.weight")
        assert torch.equal(part, joint[3 * index : 3 * index + 3])
    table = renamed.pop("vision_encoder.backbone.embeddings.position_embeddings")
    assert torch.equal(table, positions[:, 1:])  # without that of the class token
    assert not renamed.pop("vision_encoder.neck.fpn_layers.0.proj1.bias").any()
    assert renamed.keys() == {"prompt_encoder.point_embed.weight"}


def test_an_original_file_with_complex_rotary_encodings_is_read(tmp_path: Path) -> None:
    state = {
        name: torch.ones([min(side, 12) for side in shape], dtype=_dtype(name))
        for name, shape in ORIGINAL.items()
    }
    torch.save({"model": state}, tmp_path / "sam3.pt")

    with pytest.raises(CheckpointError, match="[0-9]+ other shape") as error:
        load_model(str(tmp_path / "sam3.pt"))

    # Every name is found: only the shapes, cut for this test, are not those of the model.
    assert "missing" not in str(error.value)
    assert "unexpected" not in str(error.value)


def _dtype(name: str) -> torch.dtype:
    return torch.complex64 if name.endswith("freqs_cis") else torch.float32


@pytest.mark.parametrize(
    ("part", "entry"),
    [("backbone_config", {"patch_size": 16}), ("backbone_config", {"window_size": 7})],
)
def test_another_image_encoder_is_refused(part: str, entry: dict[str, int]) -> None:
    content = small_config().to_dict()
    content["vision_config"][part] |= entry
    with pytest.raises(CheckpointError, match="give a checkpoint of SAM 3"):
        config_of(content)


@pytest.mark.parametrize("size", [168, 560, 1024, 2352])
def test_sizes_that_windows_do_not_tile_are_refused_with_the_list(size: int) -> None:
    with pytest.raises(ExportError, match=rf"size {size}.* multiple of 336: 336, 672, 1008.*2016"):
        at_image_size(small_config(), size)
