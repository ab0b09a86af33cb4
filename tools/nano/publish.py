"""A training run's averaged weights as a bundle: `python -m tools.nano.publish`.

Writes a folder that is both a model in Hugging Face format (config.json, model.safetensors in half
precision) and a bundle whose graphs read those same weights. Given such a folder instead of a run,
it keeps the weights and rewrites the graphs.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import click
import torch
from safetensors.torch import save_file
from transformers import EdgeTamVideoModel

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.storage import new_bundle_folder
from sam2_edge.errors import CheckpointError, without_traceback
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import ExportOptions
from sam2_edge.models.checkpoints import load_folder
from sam2_edge.models.edgetam.family import EDGETAM
from sam2_edge.models.families import NANO
from tools.nano.architecture import NANO_IMAGE_SIZE, nano_config
from tools.nano.edgetam import EDGETAM_NANO, edgetam_nano_config, fold_norms
from tools.nano.packing import pack_bundle
from tools.nano.trainer import CHECKPOINT

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"


def publish(source: Path, target: Path) -> Bundle:
    """Make or replace the bundle `target`; an existing model card is kept.

    Args:
        source: A training run, or a published folder, which may be `target` itself.
        target: The folder of the bundle.

    Raises:
        CheckpointError: `source` has neither a checkpoint nor published weights.
    """
    with new_bundle_folder(target, overwrite=True) as folder:
        if (source / WEIGHTS).is_file():
            for name in (WEIGHTS, CONFIG):
                shutil.copy2(source / name, folder / name)
        else:
            _write_weights(_averaged(source), folder)
        # The origin of the weights, not the temporary folder.
        loaded = load_folder(folder, image_size=NANO_IMAGE_SIZE, name=NANO, source="sam2_edge")
        if loaded.family == EDGETAM.recorded_as(loaded.model.config):
            loaded = dataclasses.replace(loaded, name=EDGETAM_NANO)
        exported = export_bundle(loaded, folder / "graphs", ExportOptions(memory_rounding="none"))
        for entry in exported.manifest.graphs.values():
            (exported.path / entry.file).rename(folder / entry.file)
        shutil.rmtree(exported.path)
        pack_bundle(folder, exported.manifest, WEIGHTS)
        if (target / CARD).is_file():
            shutil.copy2(target / CARD, folder / CARD)
    return load_bundle(target)


def _averaged(run: Path) -> dict[str, torch.Tensor]:
    path = run / CHECKPOINT
    if not path.is_file():
        raise CheckpointError(
            f"{run} has neither {CHECKPOINT} nor {WEIGHTS}; give the folder of a training run, or "
            "one that was published"
        )
    content = torch.load(path, map_location="cpu", weights_only=True)
    # The averages are of parameters; the positional frequencies are a buffer.
    return {**content["model"], **content["average"]}


def _write_weights(state: dict[str, torch.Tensor], folder: Path) -> None:
    distilled = any(name.startswith("spatial_perceiver.") for name in state)
    config = edgetam_nano_config() if distilled else nano_config()
    config.save_pretrained(folder)
    if distilled:
        model = EdgeTamVideoModel(config)
        model.load_state_dict(state)
        fold_norms(model.eval())
        state = model.state_dict()
    stored = {name: _stored(name, value).contiguous().clone() for name, value in state.items()}
    save_file(stored, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)


def _stored(name: str, value: torch.Tensor) -> torch.Tensor:
    """A tensor in half precision, unless it has to be exact: a variance cancels a constant."""
    exact = not value.is_floating_point() or name.endswith("running_var")
    return value if exact else value.half()


@click.command()
@click.argument("source", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.argument("target", type=click.Path(path_type=Path, file_okay=False))
def main(source: Path, target: Path) -> None:
    """Publish the weights of SOURCE, a training run or a published folder, as the bundle TARGET."""
    bundle = publish(source, target)
    size = sum(file.stat().st_size for file in bundle.path.iterdir())
    click.echo(f"{target}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    with without_traceback():
        main()
