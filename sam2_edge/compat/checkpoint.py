"""From what the original calls a checkpoint to a bundle: an original .pt file is exported once."""

from __future__ import annotations

import logging
from pathlib import Path

from sam2_edge.bundle import BUNDLED, Bundle, load_bundle
from sam2_edge.bundle.manifest import MANIFEST_FILE
from sam2_edge.bundle.storage import sha256_of
from sam2_edge.errors import BundleError, ExportError

CHECKPOINT_SUFFIXES = frozenset({".pt", ".pth"})

ORIGINAL_IMAGE_SIZE = 1024
"""Pixels; what all published configurations say."""

CONFIG_NAMES = {
    f"{family}_hiera_{letter}.yaml": f"{family}-hiera-{size}"
    for family in ("sam2", "sam2.1")
    for letter, size in (("t", "tiny"), ("s", "small"), ("b+", "base-plus"), ("l", "large"))
}
"""The models that the original's configuration files stand for."""

_log = logging.getLogger(__name__)


def find_bundle(
    config_file: str | Path, ckpt_path: str | Path | None, image_size: int | None
) -> Bundle:
    """The bundle that the arguments of a builder name.

    ckpt_path: a bundle, "nano", or an original .pt file, which is exported into a folder beside it
    unless that was done before with the same file. Without it config_file is the bundle. Where both
    are given, config_file may be the name of the original's configuration file.
    image_size: what the bundle is to have, pixels; None for whatever it has.

    Raises BundleError, CheckpointError or ExportError when there is none, or it does not fit.
    """
    named = config_file if ckpt_path is None else ckpt_path
    path = Path(named)
    if path.suffix.lower() in CHECKPOINT_SUFFIXES and not path.is_dir():
        bundle = _exported(path, image_size or ORIGINAL_IMAGE_SIZE)
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
        raise BundleError(f"{bundle.path} holds {found}, {config_file} is for {expected}")
    return bundle


def bundle_beside(checkpoint: Path, image_size: int) -> Path:
    """Where an original checkpoint's bundle lies."""
    size = "" if image_size == ORIGINAL_IMAGE_SIZE else f"-{image_size}"
    return checkpoint.with_name(f"{checkpoint.stem}{size}.bundle")


def _exported(checkpoint: Path, image_size: int) -> Bundle:
    """The bundle of an original checkpoint, made if it is not there or of another file."""
    if not checkpoint.is_file():
        raise BundleError(f"{checkpoint} does not exist; check the path")
    target = bundle_beside(checkpoint, image_size)
    if (target / MANIFEST_FILE).is_file():
        bundle = load_bundle(target)
        if bundle.manifest.model.sha256 == sha256_of(checkpoint):
            return bundle
        _log.warning("%s was made of another %s and is made anew", target, checkpoint.name)
    by_hand = f"sam2-edge export {checkpoint} --image-size {image_size} --output FOLDER"
    try:
        from sam2_edge.export.pipeline import export_bundle
        from sam2_edge.models.checkpoints import load_original
    except ImportError as error:
        raise ExportError(
            f"{checkpoint} is an original checkpoint, and exporting it needs PyTorch and "
            "transformers. Install them with: pip install 'sam2_edge[export]', or run elsewhere: "
            f"{by_hand}; then give that folder as ckpt_path"
        ) from error
    _log.warning("%s is exported to %s, once; this takes minutes", checkpoint, target)
    loaded = load_original(checkpoint, image_size=image_size)
    try:
        return export_bundle(loaded, target, overwrite=target.exists())
    except BundleError as error:
        raise BundleError(
            f"{error}; or run: {by_hand}, and give that folder as ckpt_path"
        ) from error
