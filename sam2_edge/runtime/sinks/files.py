"""Output path checks and atomic writes."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_edge.bundle.storage import atomic_file
from sam2_edge.bundle.temporary import remove_leftovers
from sam2_edge.errors import SinkError, reason_of

STANDARD_OUTPUT = Path("-")
"""Given as an output file, it means standard output; a file of that name is ./- to the shell."""


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, or to `STANDARD_OUTPUT`.

    Raises:
        SinkError: If it cannot be written.
    """
    if path == STANDARD_OUTPUT:
        sys.stdout.write(text)
        return
    with _atomic_output(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_image(path: Path, image: Image.Image | NDArray[np.uint8]) -> None:
    """Write an image atomically, in the format of the file's suffix.

    Args:
        path: Where to write it.
        image: A PIL image, or [H, W] gray or [H, W, 3] BGR.

    Raises:
        SinkError: If it cannot be written.
    """
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image[..., ::-1] if image.ndim == 3 else image)
    with _atomic_output(path) as partial:
        image.save(partial)


@contextmanager
def _atomic_output(path: Path) -> Iterator[Path]:
    try:
        with atomic_file(path) as partial:
            yield partial
    except OSError as error:
        raise SinkError(f"{path} cannot be written: {reason_of(error)}") from error
    except ValueError as error:  # PIL's, for an unknown suffix
        raise SinkError(f"{path} cannot be written: {error}; give another suffix") from error


class _WholeWrites(FileIO):
    """Writes everything or raises, without a buffer that a killed process would lose."""

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        while rest:
            rest = rest[super().write(rest) or 0 :]
        return len(data)


class _SharedWrites(_WholeWrites):
    """Standard output, on which the lines of several streams must not mix."""

    _lock = threading.Lock()

    def write(self, data: Any) -> int:
        with self._lock:
            return super().write(data)


def open_output(path: Path, *, overwrite: bool) -> FileIO:
    """Open a file for writing that `check_new_file` has accepted; raises OSError.

    The file itself is opened, never one that a link put there since the check points to. For
    `STANDARD_OUTPUT` it is a copy of its descriptor, so that closing the file leaves it open.
    """
    if path == STANDARD_OUTPUT:
        return _SharedWrites(os.dup(sys.stdout.fileno()), "wb")

    def opener(name: str, flags: int) -> int:
        if not path.exists() or path.is_file():
            flags |= getattr(os, "O_NOFOLLOW", 0) | (0 if overwrite else os.O_EXCL)
        return os.open(name, flags, 0o666)

    return _WholeWrites(path, "wb", opener=opener)


def check_image_suffix(path: Path | None) -> None:
    """Raise SinkError unless an image can be written in the format of the path's suffix."""
    if path is not None and path.suffix.lower() not in Image.registered_extensions():
        raise SinkError(f"{path} is not the name of an image; give one that ends with .png or .jpg")


def make_folder(folder: Path) -> None:
    """Create a folder, if it does not exist, with its parents.

    Raises:
        SinkError: If it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"{folder} cannot be created: {reason_of(error)}") from error


def bytes_on_disk(path: Path) -> int:
    """Return a file's disk usage in bytes, at least one block of 4 KiB."""
    return max(4096, path.stat().st_blocks * 512)


def check_outputs(inputs: Sequence[Path | None], outputs: Sequence[Path | None]) -> None:
    """Check that no output overwrites an input or another output; None entries are skipped.

    Raises:
        SinkError: If an output is an input, lies in an input folder, or is given twice.
    """
    targets = set[Path]()
    for output in filter(None, outputs):
        target = _resolved(output)
        for source in filter(None, inputs):
            if _resolved(source) in (target, target.parent):
                raise SinkError(f"{output} would change the source {source}; write elsewhere")
        if target in targets:
            raise SinkError(f"{output} is given for two outputs; give each its own name")
        targets.add(target)


def _resolved(path: Path) -> Path:
    """Follow links; unlike `Path.resolve`, keep those that lead in a circle."""
    return Path(os.path.realpath(path))


def check_new_folder(folder: Path | None, *, overwrite: bool) -> None:
    """Raise SinkError unless files may be written into `folder`, which need not exist."""
    if folder is None:
        return
    if folder == STANDARD_OUTPUT:
        raise SinkError(f"{folder} is standard output, but a folder is needed; give its name")
    status = _status(folder)
    if status is None:
        nearest = next(p for p in folder.absolute().parents if _status(p) is not None)
        if not nearest.is_dir():
            raise SinkError(
                f"{folder} cannot be created: {nearest} is a file; choose another folder"
            )
        _check_writable(folder, nearest)
        return
    if stat.S_ISLNK(status.st_mode) and not folder.exists():
        raise _link_error(folder)
    if not folder.is_dir():
        raise SinkError(f"{folder} is not a folder; choose another name")
    _check_writable(folder, folder)
    remove_leftovers(folder)
    if any(folder.iterdir()) and not overwrite:
        raise SinkError(f"{folder} is not empty; choose another folder or pass --overwrite")


def check_new_file(path: Path | None, *, overwrite: bool, suffix: str | None = None) -> None:
    """Raise SinkError unless a file may be written at `path`, whose name must end with `suffix`.

    Pipes and devices are allowed, and links to them, such as /dev/stdout. Other links are not: a
    file that someone else chose would be written. `STANDARD_OUTPUT` is always accepted.
    """
    if path is None or path == STANDARD_OUTPUT:
        return
    if suffix is not None and path.suffix.lower() != suffix:
        raise SinkError(f"{path} would contain {suffix[1:]}; give a name that ends with {suffix}")
    status = _status(path)
    if status is None:
        if not path.parent.is_dir():
            raise SinkError(f"folder {path.parent} does not exist; create it first")
        _check_writable(path, path.parent)
        return
    if stat.S_ISLNK(status.st_mode) and (path.is_file() or not path.exists()):
        raise _link_error(path)
    if path.is_dir():
        raise SinkError(f"{path} is a folder; give a file name")
    if path.is_file() and not overwrite:
        raise SinkError(f"{path} exists; choose another name or pass --overwrite")
    _check_writable(path, path.parent if path.is_file() else path)


def _status(path: Path) -> os.stat_result | None:
    """Return the status of a path, not following a link; None if nothing is there."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        file = next(p for p in path.absolute().parents if p.is_file())
        raise SinkError(
            f"{path} cannot be created: {file} is a file; choose another folder"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        reason = reason_of(error) if isinstance(error, OSError) else f"{error}; give another name"
        raise SinkError(f"{path} cannot be written: {reason}") from error


def _check_writable(path: Path, place: Path) -> None:
    if not os.access(place, os.W_OK):
        raise SinkError(f"{path} cannot be written: {place} is not writable; write elsewhere")


def _link_error(path: Path) -> SinkError:
    return SinkError(
        f"{path} is a link to {_resolved(path)}, and nothing is written through links; give the "
        "path that it points to, or remove it"
    )
