"""Checks of what `sam2-edge export` is given, without PyTorch, whose import takes seconds."""

from __future__ import annotations

from pathlib import Path

from sam2_edge.bundle.manifest import MANIFEST_FILE
from sam2_edge.bundle.names import BUNDLED, BUNDLED_AS, no_such_model, published
from sam2_edge.errors import CheckpointError, ExportError
from sam2_edge.runtime.paths import open_file


def check_model(model: str, checkpoint: Path | None, random_seed: int | None) -> None:
    """Check that a model can be loaded, as far as that is known without reading its weights.

    Args:
        model: MODEL of the command.
        checkpoint: Original .pt file, which MODEL then names.
        random_seed: Seed of random weights, of which MODEL then is the architecture.

    Raises:
        CheckpointError: If it is not there, or there are two sources of its weights.
        ExportError: If it is a bundle.
    """
    if checkpoint is not None and random_seed is not None:
        raise CheckpointError("both --checkpoint and --random-init were given; give one of them")
    if checkpoint is not None or random_seed is not None:
        if published(model) is None:
            raise CheckpointError(no_such_model(model))
        if checkpoint is not None:
            open_file(checkpoint, error=CheckpointError).close()
    elif model not in BUNDLED and not _is_there(Path(model)) and published(model) is None:
        raise CheckpointError(no_such_model(model))


def _is_there(path: Path) -> bool:
    if not path.is_dir():
        return path.is_file()
    if (path / "config.json").is_file():
        return True
    if (path / MANIFEST_FILE).is_file():
        raise ExportError(
            f"{path} is a bundle, not a model; to build engines from its graphs, run sam2-edge "
            f"build-engines {path}, otherwise give the model"
        )
    raise CheckpointError(
        f"{path} holds no config.json; give a folder in Hugging Face format, with model.safetensors"
    )


def check_image_size(model: str, image_size: int | None) -> None:
    """Raise ExportError for an image size that a published or bundled model does not take."""
    known = published(BUNDLED_AS.get(model, model))
    if known is None or image_size is None or image_size in known.image_sizes:
        return
    sizes = known.image_sizes
    raise ExportError(
        f"{model} does not take image size {image_size}; give a multiple of {sizes.step} from "
        f"{sizes.start} to {sizes[-1]}"
    )
