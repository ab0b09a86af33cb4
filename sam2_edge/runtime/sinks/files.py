"""Checks of output paths, and files written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_edge.errors import SinkError


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises SinkError when it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SinkError(f"{path} cannot be written: {error.strerror}; write elsewhere") from error


def write_image(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write [H,W] or [H,W,3] BGR uint8 in the format of the file's suffix.

    Raises SinkError when it cannot be written.
    """
    _write_atomically(path, Image.fromarray(picture[..., ::-1] if picture.ndim == 3 else picture))


def _write_atomically(path: Path, image: Image.Image) -> None:
    temporary = path.with_name(f".{path.name}.part{path.suffix}")
    try:
        image.save(temporary)
        temporary.replace(path)
    except (OSError, ValueError) as error:
        temporary.unlink(missing_ok=True)
        raise SinkError(f"{path} cannot be written: {error}; files before it are whole") from error


def check_outputs(source: Path, outputs: Sequence[Path | None]) -> None:
    """Raise SinkError where an output is the source, lies in a source folder, or is given twice."""
    origin, seen = source.resolve(), set[Path]()
    for path in (p for p in outputs if p is not None):
        place = path.resolve()
        if place == origin or (origin.is_dir() and origin == place.parent):
            raise SinkError(f"{path} would change the source {source}; write elsewhere")
        if place in seen:
            raise SinkError(f"{path} is given for two outputs; give each its own name")
        seen.add(place)


def check_new_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise SinkError unless files may be written into `folder`, which may not exist yet."""
    if folder.exists() and not folder.is_dir():
        raise SinkError(f"{folder} is not a folder; choose another name")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise SinkError(f"{folder} is not empty; choose another folder or pass --overwrite")
    nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise SinkError(f"{folder} cannot be made: {nearest} is a file; choose another")


def check_new_file(path: Path, *, overwrite: bool, suffix: str | None = None) -> None:
    """Raise SinkError unless a file may be written at `path`.

    suffix: what its name must end with, if anything.
    """
    if suffix is not None and path.suffix.lower() != suffix:
        raise SinkError(f"{path} would hold {suffix[1:]}; give a name that ends with {suffix}")
    if path.is_dir():
        raise SinkError(f"{path} is a folder; give a file name")
    if path.is_file() and not overwrite:
        raise SinkError(f"{path} exists; choose another name or pass --overwrite")
    if not path.parent.is_dir():
        raise SinkError(f"folder {path.parent} does not exist; make it first")
