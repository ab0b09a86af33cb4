"""Writing files and folders atomically: what exists under its final name is complete."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sam2_edge.bundle.manifest import MANIFEST_FILE, FileEntry, Manifest
from sam2_edge.bundle.temporary import temporary_file, temporary_folder
from sam2_edge.errors import BundleError, Sam2EdgeError, reason_of


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield an empty sibling with the same suffix that becomes `path` if the block succeeds.

    A link to a file is replaced, and what it points to is left alone. A device or pipe is never
    replaced: it is yielded itself.

    Raises:
        OSError: If the file cannot be put in place.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    with temporary_file(path.parent, path.suffix) as partial:
        yield partial
        partial.replace(path)


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
    parent = staging or target.parent
    with ExitStack() as stack:
        with _translated(target, error):
            if staging is None:
                parent.mkdir(parents=True, exist_ok=True)
            partial = stack.enter_context(temporary_folder(parent))
        yield partial
        with _translated(target, error):
            if target.exists():
                # Renamed away first, so that a reader never sees a half-removed folder.
                with temporary_folder(parent) as old:
                    target.rename(old / "old")
                    partial.rename(target)
            else:
                partial.rename(target)


@contextmanager
def _translated(target: Path, kind: type[Sam2EdgeError]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise kind(f"{target} cannot be made: {reason_of(error)}") from error


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
