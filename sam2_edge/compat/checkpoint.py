"""From an original checkpoint to a bundle: a .pt file is exported once, beside itself."""

from __future__ import annotations

import logging
from pathlib import Path

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.manifest import MANIFEST_FILE
from sam2_edge.bundle.names import BUNDLED
from sam2_edge.bundle.storage import sha256_of
from sam2_edge.errors import BundleError, ExportError

CHECKPOINT_SUFFIXES = frozenset({".pt", ".pth"})

ORIGINAL_IMAGE_SIZE = 1024
"""Pixels; the same in all published configurations."""

_FAMILIES = ("sam2", "sam2.1")
_SIZES = {"t": "tiny", "s": "small", "b+": "base-plus", "l": "large"}

CONFIG_NAMES = {
    f"{family}_hiera_{letter}.yaml": f"{family}-hiera-{size}"
    for family in _FAMILIES
    for letter, size in _SIZES.items()
} | {"edgetam.yaml": "edgetam"}
"""Model names by original configuration file."""

HUB_CHECKPOINTS = {
    f"facebook/{family}-hiera-{size}": f"{family}_hiera_{size.replace('-', '_')}.pt"
    for family in _FAMILIES
    for size in _SIZES.values()
} | {"facebook/EdgeTAM": "edgetam.pt"}
"""Original checkpoints by repository of the Hugging Face Hub."""

_log = logging.getLogger(__name__)


def find_bundle(
    config_file: str | Path, ckpt_path: str | Path | None, image_size: int | None
) -> Bundle:
    """Find or export the bundle that a builder's arguments name; see `build_sam2` for its errors.

    The bundle beside a .pt file is used if it was made from the same bytes. The model must be that
    of `config_file` if both are published ones, and have the image size, in pixels, if it is given.
    """
    named = config_file if ckpt_path is None else ckpt_path
    path = Path(named)
    if path.suffix.lower() in CHECKPOINT_SUFFIXES and not path.is_dir():
        bundle = _export_once(path, image_size or ORIGINAL_IMAGE_SIZE)
    elif ckpt_path is None and not path.is_dir() and str(named) not in BUNDLED:
        raise BundleError(
            f"{named} alone names no weights; give a bundle, nano or an original .pt file as "
            "ckpt_path"
        )
    else:
        bundle = load_bundle(named)
    if image_size is not None and bundle.manifest.image_size != image_size:
        raise BundleError(
            f"{bundle.path} was exported for images of {bundle.manifest.image_size} pixels, not "
            f"{image_size}; export it with --image-size {image_size}"
        )
    expected, found = CONFIG_NAMES.get(Path(config_file).name), bundle.manifest.model.name
    if expected is not None and found in CONFIG_NAMES.values() and found != expected:
        raise BundleError(
            f"{bundle.path} holds {found}, and {config_file} is for {expected}; give matching ones"
        )
    return bundle


def bundle_beside(checkpoint: Path, image_size: int) -> Path:
    """Return the path of an original checkpoint's bundle."""
    size = "" if image_size == ORIGINAL_IMAGE_SIZE else f"-{image_size}"
    return checkpoint.with_name(f"{checkpoint.stem}{size}.bundle")


def hub_checkpoint(model_id: str) -> str | None:
    """Download the checkpoint of a published model; return None for any other model id.

    Raises:
        BundleError: If it cannot be downloaded.
    """
    if model_id not in HUB_CHECKPOINTS:
        return None
    filename = HUB_CHECKPOINTS[model_id]
    remedy = (
        f"or run elsewhere: sam2-edge export {model_id.partition('/')[2].lower()} --output FOLDER; "
        "then give that folder"
    )
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise BundleError(
            f"{model_id} has to be downloaded and exported; install what that needs with: "
            f"pip install 'sam2_edge[export]', {remedy}"
        ) from error
    try:
        return str(hf_hub_download(repo_id=model_id, filename=filename))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BundleError(
            f"{filename} of {model_id} could not be downloaded from the Hugging Face Hub "
            f"({error}); check the network, {remedy}"
        ) from error


def _export_once(checkpoint: Path, image_size: int) -> Bundle:
    if not checkpoint.is_file():
        raise BundleError(f"{checkpoint} does not exist; check the path")
    target = bundle_beside(checkpoint, image_size)
    if (target / MANIFEST_FILE).is_file():
        bundle = load_bundle(target)
        if bundle.manifest.model.sha256 == sha256_of(checkpoint):
            return bundle
        _log.warning("%s was made from another %s; exporting again", target, checkpoint.name)
    remedy = (
        f"or run elsewhere: sam2-edge export {checkpoint} --image-size {image_size} --output "
        "FOLDER; then give that folder as ckpt_path"
    )
    try:
        from sam2_edge.export.pipeline import export_bundle
        from sam2_edge.models.checkpoints import load_original
    except ImportError as error:
        raise ExportError(
            f"{checkpoint} is an original checkpoint, and exporting it needs PyTorch and "
            f"transformers; install them with: pip install 'sam2_edge[export]', {remedy}"
        ) from error
    _log.warning("exporting %s to %s, once; this takes minutes", checkpoint, target)
    loaded = load_original(checkpoint, image_size=image_size)
    try:
        return export_bundle(loaded, target, overwrite=target.exists())
    except BundleError as error:
        raise BundleError(f"{error}; {remedy}") from error
