"""Writing files and folders atomically: what exists under its final name is complete."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sam2_edge.bundle.manifest import MANIFEST_FILE, FileEntry, Manifest
from sam2_edge.bundle.names import BUNDLED
from sam2_edge.bundle.temporary import temporary_file, temporary_folder
from sam2_edge.errors import BundleError, Sam2EdgeError, reason_of

MIN_FREE_BYTES = 32 * 2**20
"""About what the smallest bundle takes while it is written."""

_RENAME_EXCHANGE = 2
"""Flag of renameat2 in linux/fs.h."""

_ANY_FOLDER = -1
"""Descriptor of the folder that relative paths start from; the paths given are absolute."""


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
            if not target.exists():
                partial.rename(target)
            elif target.is_symlink() or not _exchange(partial, target):
                _replace(partial, target, parent)


def _exchange(new: Path, old: Path) -> bool:
    """Swap two folders in one step; return whether the system can (Linux with glibc 2.28)."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    paths = os.fsencode(new.absolute()), os.fsencode(old.absolute())
    return bool(rename(_ANY_FOLDER, paths[0], _ANY_FOLDER, paths[1], _RENAME_EXCHANGE) == 0)


def _replace(new: Path, old: Path, parent: Path) -> None:
    """Put a folder in the place of another, which comes back if that fails."""
    with temporary_folder(parent) as aside:
        old.rename(aside / "old")
        try:
            new.rename(old)
        except OSError:
            (aside / "old").rename(old)
            raise


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
    if str(target) in BUNDLED:
        raise BundleError(
            f"{target} is the name of a bundled model, and --bundle {target} would not mean this "
            f"folder; choose another, such as my-{target}"
        )
    if not target.exists() and not target.is_symlink():
        _check_room(target)
        return
    if not overwrite:
        raise BundleError(f"{target} exists; choose another folder or pass --overwrite")
    if not (target / MANIFEST_FILE).is_file():
        raise BundleError(
            f"{target} exists and is not a bundle, so it is not overwritten; choose another folder"
        )


def _check_room(target: Path) -> None:
    """Raise BundleError unless a folder can be made at `target`, on a disk that is not full."""
    parent = next(p for p in target.absolute().parents if p.exists())
    if not parent.is_dir():
        raise BundleError(f"{target} cannot be made: {parent} is a file; choose another folder")
    if not os.access(parent, os.W_OK):
        raise BundleError(
            f"{target} cannot be made: {parent} is not writable; choose another folder"
        )
    free = shutil.disk_usage(parent).free
    if free < MIN_FREE_BYTES:
        raise BundleError(
            f"{target} cannot be made: its disk has {free >> 20} MiB free, and a bundle needs at "
            f"least {MIN_FREE_BYTES >> 20}; free some space, or choose a folder elsewhere"
        )


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json into the folder of a bundle."""
    text = manifest.model_dump_json(indent=2)
    with atomic_file(folder / MANIFEST_FILE) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


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
