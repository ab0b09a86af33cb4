"""Reads configurations and tensors from files of others, which are checked before use."""

from __future__ import annotations

import json
import reprlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sam2_edge.errors import CheckpointError

MAX_JSON_BYTES = 2**24
MAX_PICKLE_BYTES = 2**26
"""The pickle of a .pt file describes the tensors; it takes 0.1 MB in Meta's checkpoints."""

MAX_SIZE = 65_536
"""Largest number in a configuration; the largest of SAM 2 is 2,304."""

MAX_LAYERS = 256
"""Largest number of layers of a part; SAM 2.1 large has 48 blocks in its image encoder."""

_COUNTS = ("layers", "depth", "depths", "blocks_per_stage", "num_multimask_outputs")
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def read_config(folder: Path) -> dict[str, Any]:
    """Read the content of a folder's config.json.

    Raises:
        CheckpointError: The file cannot be read, or a value in it is impossible.
    """
    path = folder / "config.json"
    content = _read_json(path)
    todo: list[tuple[str, Any]] = list(content.items())
    while todo:
        name, value = todo.pop()
        if isinstance(value, dict):
            todo += value.items()
        elif isinstance(value, list):
            todo += [(name, each) for each in value]
        elif isinstance(value, (int, float)):
            limit = MAX_LAYERS if name.endswith(_COUNTS) else MAX_SIZE
            if not abs(value) <= limit:
                raise CheckpointError(
                    f"{path}: {name} is {reprlib.repr(value)}; at most {limit} is allowed"
                )
    return content


def unfit_config(path: Path, error: Exception) -> CheckpointError:
    """Return the error for a configuration that transformers cannot use."""
    return CheckpointError(
        f"{path} does not configure a video model ({_reason(error)}); give a folder in "
        "Hugging Face format"
    )


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder in Hugging Face format, none outside of it.

    Raises:
        CheckpointError: There are none, or the index names others.
    """
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    if not (folder / _INDEX).is_file():
        raise CheckpointError(
            f"{folder} holds no {_SINGLE} and no {_INDEX}; give a folder in Hugging Face format"
        )
    shards = _read_json(folder / _INDEX).get("weight_map")
    names = set(map(str, shards.values())) if isinstance(shards, dict) else set()
    inside = {path.name for path in folder.glob("*.safetensors") if path.is_file()}
    if not names or not names <= inside:
        others = ", ".join(sorted(map(ascii, names - inside))[:3]) or "no shards"
        raise CheckpointError(
            f"{folder / _INDEX} names {others}; its shards must be files in that folder: copy the "
            "whole folder again"
        )
    return [folder / name for name in sorted(names)]


def read_safetensors(files: list[Path]) -> dict[str, Tensor]:
    """Read all tensors of the files of one model.

    Raises:
        CheckpointError: A file is damaged, or two hold a tensor of the same name.
    """
    state: dict[str, Tensor] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                repeated = state.keys() & set(names)
                state.update((name, file.get_tensor(name)) for name in names)
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} cannot be read as tensors ({_reason(error)}); copy it again"
            ) from error
        if repeated:
            raise CheckpointError(
                f"{path} holds {min(repeated)}, which another file of the model holds too; remove "
                "the file that does not belong to it"
            )
    _check_tensors(state, sum(path.stat().st_size for path in files), str(files[0].parent))
    return state


def read_original(path: Path) -> dict[str, Tensor]:
    """Read the tensors of one of Meta's .pt checkpoints, or one fine-tuned from it.

    Raises:
        CheckpointError: The file cannot be read, or holds something else.
    """
    remedy = "give a complete .pt file that holds only weights"
    try:
        _check_archive(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path} does not exist; check the path") from error
    except Exception as error:  # a damaged pickle makes PyTorch raise almost anything
        raise CheckpointError(
            f"checkpoint {path} cannot be read as tensors ({_reason(error)}); {remedy}"
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise CheckpointError(
            f"checkpoint {path} holds no state dict; give a .pt file with named tensors under "
            '"model"'
        )
    _check_tensors(state, path.stat().st_size, f"checkpoint {path}")
    return state


def _check_archive(path: Path) -> None:
    """Raise ValueError unless a file is a zip archive as `torch.save` writes it, uncompressed."""
    if not path.is_file():
        raise FileNotFoundError(path)
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not a zip archive as torch.save writes it")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("two entries of the archive have the same name")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{entry.filename} is compressed; torch.save stores without")
        if entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE_BYTES:
            raise ValueError(
                f"{entry.filename} has {entry.file_size} bytes; at most {MAX_PICKLE_BYTES} are read"
            )


def _check_tensors(state: Mapping[str, Tensor], size: int, source: str) -> None:
    """Raise CheckpointError unless every tensor is dense, floating and no larger than its file."""
    for name, tensor in state.items():
        counter = tensor.dtype == torch.int64 and not tensor.dim()  # of batch normalization
        rotary = tensor.is_complex() and name.endswith(".freqs_cis")  # of SAM 3, which is dropped
        number = tensor.is_floating_point() or counter or rotary
        dense = tensor.layout is torch.strided and tensor.device.type == "cpu"
        if len(name) > 256 or not dense or not number or tensor.is_nested:
            raise CheckpointError(
                f"{source} holds {name[:80]} as {tensor.dtype}, {tensor.layout}; weights are dense "
                "tensors of floating-point numbers: save them as such"
            )
        # A view with strides of zero has any size without a byte of its own.
        if tensor.numel() * tensor.element_size() > size:
            raise CheckpointError(
                f"{source} holds {name} of shape {list(tensor.shape)}, larger than its file of "
                f"{size} bytes; do not use it"
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES or not path.is_file():
            raise ValueError(f"it is not a file of at most {MAX_JSON_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({_reason(error)}); copy the whole folder again"
        ) from error
    return content


def _reason(error: Exception) -> str:
    """Return the first line of an error's message, or its type."""
    lines = str(error).splitlines() or [""]
    return lines[0][:200] or type(error).__name__
