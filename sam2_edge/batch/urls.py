"""Files behind URLs, with fsspec: s3://, gs://, memory:// and others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sam2_edge.errors import Sam2EdgeError


def is_url(path: str) -> bool:
    """Return whether a path is a URL."""
    return "://" in path


def file_system(url: str, error: type[Sam2EdgeError]) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path in it.

    Raises:
        Sam2EdgeError: Of the class `error`, if fsspec or what it needs for the URL is missing.
    """
    try:
        import fsspec
    except ImportError as reason:
        raise error(
            f"{url} is a URL, which needs fsspec; install it with: pip install 'sam2_edge[ray]'"
        ) from reason
    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as reason:
        raise error(f"{url} cannot be opened: {reason}") from reason
    return system, str(path)


def fetched(source: str, folder: Path, error: type[Sam2EdgeError]) -> Path:
    """Return the path of a file or folder; behind a URL it is copied to `folder` first.

    Raises:
        Sam2EdgeError: Of the class `error`, if a URL cannot be read.
    """
    if not is_url(source):
        return Path(source)
    system, path = file_system(source, error)
    target = folder / Path(path).name
    with translated(source, error):
        system.get(path, str(target), recursive=system.isdir(path))
    return target


@contextmanager
def translated(url: str, error: type[Sam2EdgeError]) -> Iterator[None]:
    """Raise what a file system raises as an error of a class."""
    try:
        yield
    except Sam2EdgeError:
        raise
    except Exception as reason:
        # Every file system has errors of its own.
        raise error(
            f"{url}: {type(reason).__name__}: {reason}; check the URL and access"
        ) from reason
