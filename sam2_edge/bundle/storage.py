"""Writing files and folders atomically: what exists under its final name is complete."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sam2_edge.bundle.manifest import MANIFEST_FILE, FileEntry, Manifest
from sam2_edge.errors import BundleError, Sam2EdgeError

PARTIAL = ".part"
"""Part of the name of every unfinished file and folder; a killed process may leave one."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling with the same suffix that becomes `path` if the block succeeds.

    Raises:
        OSError: If the file cannot be put in place.
    """
    partial = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{PARTIAL}{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(
    target: Path, *, error: type[Sam2EdgeError], staging: Path | None = None
) -> Iterator[Path]:
    """Yield a temporary folder that becomes `target`, or replaces it, if the block succeeds.

    Args:
        target: Path of the finished folder.
        error: Raised if the folder cannot be made or put in place.
        staging: Existing folder on the same file system for the temporary one; by default the
            parent of `target`, which is made if missing.
    """
    with _translated(target, error):
        if staging is None:
            target.parent.mkdir(parents=True, exist_ok=True)
        partial = _temporary_folder(target, staging)
        partial.chmod(0o755)
    try:
        yield partial
        with _translated(target, error):
            if target.exists():
                # Renamed away first, so that a reader never sees a half-removed folder.
                old = _temporary_folder(target, staging)
                target.rename(old / target.name)
                partial.rename(target)
                shutil.rmtree(old)
            else:
                partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _temporary_folder(target: Path, staging: Path | None) -> Path:
    folder = staging or target.parent
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=PARTIAL, dir=folder))


@contextmanager
def _translated(target: Path, kind: type[Sam2EdgeError]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise kind(f"{target} cannot be made: {error}; choose another folder") from error


@contextmanager
def new_bundle_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes the bundle `target` if the block succeeds.

    Raises:
        BundleError: If `target` exists, unless `overwrite` is set and it is a bundle.
    """
    check_new_bundle(target, overwrite=overwrite)
    with atomic_folder(target, error=BundleError) as partial:
        yield partial
        check_new_bundle(target, overwrite=overwrite)


def check_new_bundle(target: Path, *, overwrite: bool = False) -> None:
    """Raise BundleError unless a bundle may be written at `target`."""
    if not target.exists() and not target.is_symlink():
        return
    if not overwrite:
        raise BundleError(f"{target} exists; choose another folder or pass --overwrite")
    if not (target / MANIFEST_FILE).is_file():
        raise BundleError(
            f"{target} exists and is not a bundle, so it is not overwritten; choose another folder"
        )


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json into the folder of a bundle that is being made."""
    text = manifest.model_dump_json(indent=2)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def file_entry(folder: Path, name: str) -> FileEntry:
    """Return the manifest entry of the file `name` in `folder`."""
    return FileEntry(file=name, sha256=sha256_of(folder / name))


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
