"""Files of weights from others: each fault is one clear error, before anything large happens."""

from __future__ import annotations

import hashlib
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import Sam2VideoModel

from sam2_edge.errors import CheckpointError, ExportError
from sam2_edge.models.checkpoints import load_folder
from sam2_edge.models.weight_files import (
    read_config,
    read_original,
    read_safetensors,
    weight_files,
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "original.pt"
    torch.save({"model": {"a": torch.ones(3), "b": torch.zeros(2, 2)}}, path)
    return path


def rewritten(path: Path, **options: Any) -> Path:
    """The same archive with other options of zipfile."""
    other = path.with_name("other.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w", **options) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return other


def test_an_archive_that_is_written_again_is_read(checkpoint: Path) -> None:
    state = read_original(rewritten(checkpoint))
    assert {name: tuple(t.shape) for name, t in state.items()} == {"a": (3,), "b": (2, 2)}


def test_a_compressed_archive_is_refused_before_it_is_expanded(checkpoint: Path) -> None:
    packed = rewritten(checkpoint, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"data\.pkl is compressed; torch\.save stores"):
        read_original(packed)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_an_entry_twice_is_refused(checkpoint: Path) -> None:
    with zipfile.ZipFile(checkpoint, "a") as archive:
        name = archive.namelist()[0]
        archive.writestr(name, archive.read(name))
    with pytest.raises(CheckpointError, match="two entries .* have the same name"):
        read_original(checkpoint)


UNFIT: dict[str, tuple[Any, str]] = {
    "integer keys": ({1: torch.ones(1)}, "holds no state dict"),
    "integer keys under model": ({"model": {1: torch.ones(1)}}, "holds no state dict"),
    "a list": ([torch.ones(1)], "holds no state dict"),
    "numbers": ({"a": 1}, "holds no state dict"),
    "integers": ({"a": torch.ones(1, dtype=torch.int64)}, r"a as torch\.int64"),
    "complex": ({"a": torch.ones(1, dtype=torch.complex64)}, r"a as torch\.complex64"),
    "sparse": ({"a": torch.eye(3).to_sparse()}, "a as .*sparse"),
    "without data": ({"a": torch.ones(1, device="meta")}, "weights are dense"),
    "larger than the file": ({"a": torch.ones(1).expand(10**6, 10**6)}, "larger than its file"),
    "an endless name": ({"a" * 300: torch.ones(1)}, "holds a{80} as"),
}


@pytest.mark.parametrize(("content", "message"), UNFIT.values(), ids=UNFIT)
def test_what_holds_no_weights_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=message):
        read_original(tmp_path / "odd.pt")


def test_the_old_format_and_folders_are_refused(tmp_path: Path) -> None:
    old = tmp_path / "old.pt"
    torch.save({"a": torch.ones(1)}, old, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="not a zip archive as torch.save writes it"):
        read_original(old)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_original(tmp_path)


def damaged(content: bytes, seed: int) -> bytes:
    """The content with a few bytes flipped, or its end missing."""
    draw = random.Random(seed)  # noqa: S311 # no secrets here
    if seed % 4 == 0:
        return content[: draw.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damage_anywhere_in_a_checkpoint_is_one_error(checkpoint: Path) -> None:
    whole, refused = checkpoint.read_bytes(), 0
    for seed in range(300):
        checkpoint.write_bytes(damaged(whole, seed))
        try:
            read_original(checkpoint)
        except CheckpointError:
            refused += 1
    assert refused > 100


def test_damage_anywhere_in_safetensors_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(3), "b": torch.zeros(2, 2)}, path)
    whole, refused = path.read_bytes(), 0
    for seed in range(300):
        path.write_bytes(damaged(whole, seed))
        try:
            read_safetensors([path])
        except CheckpointError:
            refused += 1
    assert refused > 100


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    files = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    for path in files:
        save_file({"same": torch.ones(3)}, path)
    with pytest.raises(CheckpointError, match=r"2\.safetensors holds same, which another file"):
        read_safetensors(files)


@pytest.fixture
def folder(small_model: Sam2VideoModel, tmp_path: Path) -> Path:
    small_model.save_pretrained(tmp_path / "a" / "model")
    return tmp_path / "a" / "model"


def test_the_hash_is_that_of_the_shards_that_are_loaded(folder: Path) -> None:
    state = read_safetensors([folder / "model.safetensors"])
    (folder / "model.safetensors").unlink()
    shards = {"1.safetensors": sorted(state)[::2], "2.safetensors": sorted(state)[1::2]}
    for name, tensors in shards.items():
        save_file({tensor: state[tensor] for tensor in tensors}, folder / name)
    save_file({"decoy": torch.ones(1)}, folder / "0.safetensors")
    index = {"weight_map": {t: name for name, tensors in shards.items() for t in tensors}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    loaded = load_folder(folder)

    digests = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in shards]
    assert loaded.sha256 == hashlib.sha256("\n".join(digests).encode()).hexdigest()


@pytest.mark.parametrize("where", ["../../out.safetensors", "{outside}", "gone.safetensors", 3])
def test_a_shard_outside_the_folder_is_refused(folder: Path, where: str | int) -> None:
    outside = folder.parent.parent / "out.safetensors"
    (folder / "model.safetensors").rename(outside)
    save_file({"decoy": torch.ones(1)}, folder / "decoy.safetensors")
    name = where.format(outside=outside) if isinstance(where, str) else where
    index = {"weight_map": {"no_object_pointer": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="must be files in that folder"):
        load_folder(folder)


@pytest.mark.parametrize("index", ["{}", '{"weight_map": []}', '{"weight_map": {}}', "[]", "{"])
def test_a_malformed_index_is_refused(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        weight_files(tmp_path)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


ABSURD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "layers": (lambda c: c.update(memory_attention_num_layers=100_000), "num_layers is 100000"),
    "fuser": (
        lambda c: c.update(memory_fuser_num_layers=10**9),
        "fuser_num_layers is 1000000000;",
    ),
    "depth": (
        lambda c: c["mask_decoder_config"].update(iou_head_depth=999),
        "depth is 999; .* 256",
    ),
    "blocks": (
        lambda c: c["vision_config"]["backbone_config"].update(blocks_per_stage=[1, 1, 10**5, 1]),
        "blocks_per_stage is 100000",
    ),
    "depths": (
        lambda c: c["vision_config"]["backbone_config"].update(depths=[1, 1, 10**4, 1]),
        "depths is 10000; .* 256",
    ),
    "width": (lambda c: c.update(memory_attention_hidden_size=10**8), "hidden_size is 100000000;"),
    "not a number": (
        lambda c: c.update(initializer_range=float("nan")),
        "initializer_range is nan",
    ),
}


@pytest.mark.parametrize(("change", "message"), ABSURD.values(), ids=ABSURD)
def test_absurd_sizes_are_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(folder, change)
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{message}"):
        load_folder(folder)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_value_of_any_type_in_the_configuration_is_read_or_refused(folder: Path) -> None:
    original = json.loads((folder / "config.json").read_text())
    draw, refused = random.Random(1), 0  # noqa: S311 # no secrets here
    values = ["x", None, [], {}, -1, 0, 1.5, True, [[]], {"a": 1}]
    parts = [
        lambda c: c,
        lambda c: c["vision_config"],
        lambda c: c["vision_config"]["backbone_config"],
        lambda c: c["mask_decoder_config"],
    ]
    for _ in range(20):
        config = json.loads(json.dumps(original))
        part = draw.choice(parts)(config)
        part[draw.choice(sorted(part))] = draw.choice(values)
        (folder / "config.json").write_text(json.dumps(config))
        try:
            load_folder(folder)
        except (CheckpointError, ExportError):
            refused += 1
    assert refused > 5


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "[" * 100_000, '{"model_type": "bert"}']
)
def test_a_malformed_configuration_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json|does not fit the model"):
        load_folder(folder)


def test_a_huge_configuration_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(CheckpointError, match="at most 16777216 bytes"):
        read_config(tmp_path)


def test_weights_that_are_not_finite_are_refused(
    small_model: Sam2VideoModel, tmp_path: Path
) -> None:
    state = dict(small_model.state_dict())
    state["no_object_pointer"] = torch.full_like(state["no_object_pointer"], torch.inf)
    small_model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(CheckpointError, match="1 not finite: no_object_pointer"):
        load_folder(tmp_path)
