"""Writing files and folders atomically: what exists under its final name is complete."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sam2_edge.bundle.manifest import MANIFEST_FILE, FileEntry, Manifest
from sam2_edge.errors import BundleError


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json into a folder that is still being made."""
    text = manifest.model_dump_json(indent=2)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


@contextmanager
def new_bundle_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary sibling of `target` that becomes `target` when the block ends well.

    Raises BundleError if `target` exists, unless `overwrite` is set and it is a bundle.
    """
    check_new_bundle(target, overwrite=overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise BundleError(f"{target} cannot be made: {error}; choose another folder") from error
    staging.chmod(0o755)
    try:
        yield staging
        check_new_bundle(target, overwrite=overwrite)
        if target.exists():
            # Renamed away first, so that a reader never sees a half-removed bundle.
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            target.rename(old / "bundle")
            staging.rename(target)
            shutil.rmtree(old)
        else:
            staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_new_bundle(target: Path, *, overwrite: bool = False) -> None:
    """Raise BundleError unless a bundle may be written at `target`; for asking before long work."""
    if not target.exists() and not target.is_symlink():
        return
    if not overwrite:
        raise BundleError(f"{target} exists; choose another folder or pass --overwrite")
    if not (target / MANIFEST_FILE).is_file():
        raise BundleError(
            f"{target} exists and is not a bundle, so it is not overwritten; choose another folder"
        )


def file_entry(folder: Path, name: str) -> FileEntry:
    """The entry of a file that lies in `folder`."""
    return FileEntry(file=name, sha256=sha256_of(folder / name))


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
