"""Loading a model by name, from a folder, or from an original checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from torch import Tensor
from transformers import PreTrainedConfig

from sam2_edge.bundle.names import bundled_folder, no_such_model
from sam2_edge.bundle.storage import sha256_of
from sam2_edge.errors import CheckpointError, ExportError
from sam2_edge.models.families import (
    NANO,
    at_image_size,
    check_image_size,
    family_of_type,
    family_of_variant,
    find_variant,
    recognize_variant,
)
from sam2_edge.models.family import Family, Variant
from sam2_edge.models.random_init import random_model
from sam2_edge.models.weight_files import (
    read_config,
    read_original,
    read_safetensors,
    unfit_config,
    weight_files,
)

COUNTERS = ".num_batches_tracked"
"""Names of the buffers in which batch normalization counts; inference does not use them."""

MAX_LISTED = 20
"""Tensor names of each kind in an error."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode and its origin.

    Attributes:
        model: transformers' video model.
        name: Variant or folder name.
        family: What the manifest records, such as "sam2.1".
        source: Path, Hub repository or "random seed N".
        sha256: Of the weight file, or of the files' digests if there are several; None for random
            weights.
    """

    model: Any
    name: str
    family: str
    source: str
    sha256: str | None


def load_model(
    name: str,
    *,
    checkpoint: Path | None = None,
    random_seed: int | None = None,
    image_size: int | None = None,
) -> LoadedModel:
    """Load a model.

    Args:
        name: A variant ("sam2.1-hiera-tiny"), "nano" for the model that comes with the package, a
            folder with config.json and safetensors, or an original .pt checkpoint.
        checkpoint: An original .pt file for the variant `name`.
        random_seed: Draw random weights for the variant instead.
        image_size: Side of the model input, pixels; None for the size of training.

    Raises:
        CheckpointError: The name is unknown, or the weights cannot be read or do not fit.
        ExportError: The backbone does not take the image size.
    """
    if checkpoint is not None and random_seed is not None:
        raise CheckpointError("both a checkpoint and a random seed were given; give one of them")
    if random_seed is not None:
        variant = _known_variant(name)
        model = random_model(_variant_config(variant, image_size), random_seed)
        source = f"random seed {random_seed}"
        return LoadedModel(model, variant.name, variant.family, source, sha256=None)
    if checkpoint is not None:
        expected = _known_variant(name)
        return load_original(checkpoint, image_size=image_size, expected=expected)
    bundled = bundled_folder(name)
    if bundled is not None:
        recorded = NANO if name == "nano" else str(name)
        return load_folder(bundled, image_size=image_size, name=recorded, source="sam2_edge")
    path = Path(name)
    if path.is_file():
        return load_original(path, image_size=image_size)
    if path.is_dir():
        return load_folder(path, image_size=image_size)
    return load_published(name, image_size=image_size)


def load_published(name: str, *, image_size: int | None = None) -> LoadedModel:
    """Load a variant from the Hugging Face Hub, even if a local folder has its name.

    Raises:
        CheckpointError: The name is unknown, or the Hub cannot be reached.
    """
    known = _known_variant(name)
    if image_size is not None:
        check_image_size(family_of_variant(known), image_size)
    try:
        folder = snapshot_download(known.hub_id, allow_patterns=["config.json", "*.safetensors"])
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{known.hub_id} could not be fetched from the Hugging Face Hub ({error}); check the "
            "network, or give an original checkpoint with --checkpoint or a local folder as MODEL"
        ) from error
    return load_folder(Path(folder), image_size=image_size, name=known.name, source=known.hub_id)


def load_folder(
    folder: Path,
    *,
    image_size: int | None = None,
    name: str | None = None,
    source: str | None = None,
) -> LoadedModel:
    """Load a folder in Hugging Face format (config.json and safetensors, no pickles).

    Args:
        folder: The folder.
        image_size: Side of the model input, pixels; None for that of the configuration.
        name: Name of the model, by default that of the folder.
        source: Origin of the model, by default the folder.

    Raises:
        CheckpointError: The folder cannot be read or its weights do not fit.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} holds no config.json; give a folder in Hugging Face format, with "
            "model.safetensors"
        )
    files = weight_files(folder)
    content = read_config(folder)
    try:
        family = family_of_type(content.get("model_type"))
    except CheckpointError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    try:
        config = family.config_of(content)
        config = at_image_size(config, int(config.image_size) if image_size is None else image_size)
        expected = _expected(family, config)
    except (ExportError, CheckpointError):
        raise
    except Exception as error:  # transformers raises whatever its own code meets
        raise unfit_config(folder / "config.json", error) from error
    state = _without_counters(family.from_published(read_safetensors(files)))
    _share_frequencies(state)
    _check_fit(expected, state, str(folder))
    model = _with_weights(family, config, state)
    return LoadedModel(
        model,
        name or folder.resolve().name,
        family.recorded_as(config),
        source or str(folder),
        _digest(files),
    )


def load_original(
    path: Path, *, image_size: int | None = None, expected: Variant | None = None
) -> LoadedModel:
    """Load one of Meta's .pt checkpoints, or one fine-tuned from it.

    Args:
        path: The file.
        image_size: Side of the model input, pixels; None for the size of training.
        expected: The variant that it must be; None for any.

    Raises:
        CheckpointError: The file cannot be read, does not fit, or is not the `expected` variant.
        ExportError: The backbone does not take the image size.
    """
    state = read_original(path)
    variant = recognize_variant({name: tuple(t.shape) for name, t in state.items()})
    if expected is not None and expected != variant:
        raise CheckpointError(
            f"{path} holds {variant.name}, not {expected.name}; name the model {variant.name}"
        )
    family, config = family_of_variant(variant), _variant_config(variant, image_size)
    renamed = _without_counters(family.from_original(state))
    _check_fit(_expected(family, config), renamed, str(path))
    model = _with_weights(family, config, renamed)
    return LoadedModel(model, variant.name, variant.family, str(path), _digest([path]))


def _variant_config(variant: Variant, image_size: int | None) -> PreTrainedConfig:
    family = family_of_variant(variant)
    size = family.default_image_size if image_size is None else image_size
    check_image_size(family, size)
    return variant.config(size)


def _expected(family: Family, config: PreTrainedConfig) -> dict[str, Tensor]:
    """Names and shapes of a model's tensors, without memory for them."""
    with torch.device("meta"):
        return _without_counters(family.model_class(config).state_dict())


def _without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.endswith(COUNTERS)}


def _check_fit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Raise one CheckpointError that lists every tensor that is missing, extra or does not fit."""
    both = expected.keys() & state.keys()
    _refuse(
        source,
        missing=expected.keys() - state.keys(),
        unexpected=state.keys() - expected.keys(),
        other_shape=[
            f"{k} {list(state[k].shape)} instead of {list(expected[k].shape)}"
            for k in both
            if state[k].shape != expected[k].shape
        ],
    )
    _refuse(source, not_finite=[k for k in both if not state[k].isfinite().all()])


def _with_weights(family: Family, config: PreTrainedConfig, state: Mapping[str, Tensor]) -> Any:
    model = family.model_class(config)
    # All names have been compared; only counters of batch normalization are missing.
    model.load_state_dict({k: v.to(torch.float32) for k, v in state.items()}, strict=False)
    return model.eval()


def _known_variant(name: str) -> Variant:
    """The variant with this name or repository."""
    variant = find_variant(name)
    if variant is None:
        raise CheckpointError(no_such_model(name))
    return variant


def _share_frequencies(state: dict[str, Tensor]) -> None:
    """Copy the positional frequencies, which the model has twice, if a file stores them once."""
    names = {
        "shared_image_embedding.positional_embedding",
        "prompt_encoder.shared_embedding.positional_embedding",
    }
    present = names & state.keys()
    if len(present) == 1:
        state.update(dict.fromkeys(names, state[present.pop()]))


def _refuse(source: str, **problems: Any) -> None:
    """Raise one CheckpointError that lists every tensor that does not fit."""
    lines = []
    for kind, names in problems.items():
        listed = sorted(names)
        if listed:
            more = f" and {len(listed) - MAX_LISTED} more" if len(listed) > MAX_LISTED else ""
            label = kind.replace("_", " ")
            lines.append(f"{len(listed)} {label}: {', '.join(listed[:MAX_LISTED])}{more}")
    if lines:
        raise CheckpointError(
            f"{source} does not fit the model: {'; '.join(lines)}; give the weights of this variant"
        )


def _digest(paths: list[Path]) -> str:
    digests = [sha256_of(path) for path in paths]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
