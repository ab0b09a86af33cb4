"""Variants, checkpoints in every form, and errors that list the tensors that do not fit."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Sam2VideoModel

from sam2_edge.errors import CheckpointError, ExportError
from sam2_edge.models.checkpoints import load_model
from sam2_edge.models.families import recognize_variant
from sam2_edge.models.family import Variant
from sam2_edge.models.sam2.key_mapping import from_original
from sam2_edge.models.sam2.variants import VARIANTS
from tools.original_names import to_original

DATA = Path(__file__).parent.parent / "data" / "original_tensors.json.gz"
ORIGINAL: dict[str, dict[str, list[int]]] = json.loads(gzip.decompress(DATA.read_bytes()))
TINY = "sam2.1-hiera-tiny"


@pytest.fixture(scope="module")
def tiny_state() -> dict[str, Tensor]:
    """Random tensors under the names and shapes of the original tiny checkpoint."""
    generator = torch.Generator().manual_seed(0)
    return {n: torch.randn(s, generator=generator) for n, s in ORIGINAL[TINY].items()}


@pytest.fixture(scope="module")
def tiny_checkpoint(
    tiny_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "tiny.pt"
    torch.save({"model": tiny_state}, path)
    return path


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_every_original_checkpoint_maps_to_its_variant_completely(variant: Variant) -> None:
    shapes = ORIGINAL[variant.name]
    with torch.device("meta"):
        model = Sam2VideoModel(variant.config(1024))
        original = {n: torch.empty(s) for n, s in shapes.items()}

    renamed = from_original(original)

    own = {n: t.shape for n, t in model.state_dict().items()}
    assert {n: t.shape for n, t in renamed.items()} == own
    assert recognize_variant(shapes) == variant


def test_an_original_checkpoint_loads_tensor_for_tensor(
    tiny_checkpoint: Path, tiny_state: dict[str, Tensor]
) -> None:
    loaded = load_model(str(tiny_checkpoint), image_size=256)

    own = loaded.model.state_dict()
    assert (loaded.name, loaded.family) == (TINY, "sam2.1")
    assert len(loaded.sha256 or "") == 64
    for ours, theirs in (
        ("no_object_pointer", "no_obj_ptr"),
        (
            "vision_encoder.backbone.blocks.3.mlp.proj_out.weight",
            "image_encoder.trunk.blocks.3.mlp.layers.1.weight",
        ),
        (
            "mask_decoder.iou_prediction_head.layers.0.bias",
            "sam_mask_decoder.iou_prediction_head.layers.1.bias",
        ),
        (
            "mask_decoder.transformer.layers.1.mlp.proj_in.weight",
            "sam_mask_decoder.transformer.layers.1.mlp.layers.0.weight",
        ),
        (
            "memory_encoder.mask_downsampler.layers.3.layer_norm.weight",
            "memory_encoder.mask_downsampler.encoder.10.weight",
        ),
        ("memory_encoder.memory_fuser.layers.1.scale", "memory_encoder.fuser.layers.1.gamma"),
    ):
        assert torch.equal(own[ours], tiny_state[theirs])
    points = [tiny_state[f"sam_prompt_encoder.point_embeddings.{i}.weight"] for i in range(4)]
    assert torch.equal(own["prompt_encoder.point_embed.weight"], torch.cat(points))


def test_the_original_names_can_be_restored(tiny_state: dict[str, Tensor]) -> None:
    restored = to_original(from_original(tiny_state), tiny_state)
    assert restored.keys() == tiny_state.keys()
    assert all(torch.equal(restored[name], tensor) for name, tensor in tiny_state.items())
    with pytest.raises(KeyError, match="head"):
        to_original(from_original(tiny_state), ["head.extra"])


def test_a_bare_state_dict_and_a_named_variant_are_accepted(
    tiny_state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(tiny_state, tmp_path / "bare.pt")

    loaded = load_model(TINY, checkpoint=tmp_path / "bare.pt", image_size=256)

    assert loaded.name == TINY


def test_extra_missing_and_misshapen_tensors_are_listed_in_one_error(
    tiny_state: dict[str, Tensor], tmp_path: Path
) -> None:
    state = {**tiny_state, "head.extra": torch.zeros(1)}
    del state["no_mem_embed"]
    state["mask_downsample.weight"] = torch.zeros(1, 1, 2, 2)
    torch.save({"model": state}, tmp_path / "odd.pt")

    with pytest.raises(CheckpointError) as error:
        load_model(str(tmp_path / "odd.pt"), image_size=256)

    message = str(error.value)
    assert "1 unexpected: head.extra" in message
    assert "1 missing: no_memory_embedding" in message
    assert "mask_downsample.weight [1, 1, 2, 2] instead of [1, 1, 4, 4]" in message


def test_a_checkpoint_of_another_variant_is_named(tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="holds sam2.1-hiera-tiny, not sam2.1-hiera-small"):
        load_model("sam2.1-hiera-small", checkpoint=tiny_checkpoint, image_size=256)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"not a checkpoint", "cannot be read"),
    ],
)
def test_a_file_that_is_not_a_checkpoint_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "bad.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_model(str(tmp_path / "bad.pt"), image_size=256)


def test_a_truncated_checkpoint_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes(tiny_checkpoint.read_bytes()[:1_000_000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(str(tmp_path / "cut.pt"), image_size=256)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value] # runs if unpickled

    torch.save({"model": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="only weights"):
        load_model(str(tmp_path / "evil.pt"), image_size=256)
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_architecture_are_named(tmp_path: Path) -> None:
    torch.save({"model": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="unlike any known model"):
        load_model(str(tmp_path / "other.pt"), image_size=256)


def test_a_folder_in_hugging_face_format_loads(small_model: Sam2VideoModel, tmp_path: Path) -> None:
    small_model.save_pretrained(tmp_path / "tuned")

    loaded = load_model(str(tmp_path / "tuned"), image_size=128)

    assert loaded.name == "tuned"
    for name, tensor in small_model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name


def test_a_folder_with_a_tensor_missing_is_refused(
    small_model: Sam2VideoModel, tmp_path: Path
) -> None:
    state = small_model.state_dict()
    del state["no_object_pointer"]
    small_model.save_pretrained(tmp_path, state_dict=state)

    with pytest.raises(CheckpointError, match="1 missing: no_object_pointer"):
        load_model(str(tmp_path), image_size=128)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_model(str(tmp_path), image_size=128)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match=r"sam2\.1-hiera-base-plus"):
        load_model("sam9", image_size=256)


def test_random_weights_follow_their_seed() -> None:
    first, repeated, other = (
        load_model("sam2-hiera-tiny", random_seed=seed, image_size=64).model.state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[n], repeated[n]) for n in first)
    name = "no_memory_embedding"
    assert not torch.equal(first[name], other[name])
    assert first[name].std() > 0.1


@pytest.mark.parametrize("size", [0, 63, 100, 1000, 4096])
def test_an_unsupported_image_size_is_refused_with_the_supported_ones(size: int) -> None:
    with pytest.raises(ExportError, match=r"a multiple of 32: 64, 96, 128.* 1024.* 2048"):
        load_model(TINY, random_seed=0, image_size=size)
