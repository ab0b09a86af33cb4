"""Temporary files and folders: short random names, never through a link, cleaned after a crash.

Each is locked while it is used. The kernel releases the lock however the process ends, so whatever
has one of our names and no lock is a leftover, and the next process that writes there removes it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from sam2_edge.errors import SinkError

if sys.platform != "win32":  # which has no such locks: leftovers stay there
    import fcntl

_NAME = re.compile(r"\.sam2_edge-[0-9a-f]{16}\.part(\..*)?")

MAX_SUFFIX = 16
"""Characters; a longer suffix is no format's, and might make the name too long."""


@contextmanager
def temporary_file(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a new empty file in `folder`, deleted at the end unless it was renamed."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    with _locked(folder, lambda path: os.close(os.open(path, flags, 0o666)), suffix) as path:
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def temporary_folder(folder: Path, *, mode: int = 0o777) -> Iterator[Path]:
    """Yield a new empty folder in `folder`, deleted at the end unless it was renamed.

    Args:
        folder: The parent.
        mode: Permissions, before the process's umask is applied.
    """
    with _locked(folder, lambda path: path.mkdir(mode)) as path:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a folder for intermediate files, for this user alone, in the system's own place.

    Raises:
        SinkError: If there is no such place, or it cannot be written.
    """
    try:
        place = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise SinkError(f"{error.strerror}; set TMPDIR to a writable folder with room") from error
    with temporary_folder(place, mode=0o700) as folder:
        yield folder


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes of this user left in `folder`; failures are ignored."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                _remove_unless_locked(Path(entry.path))


_remove_leftovers_once = lru_cache(maxsize=256)(remove_leftovers)


@contextmanager
def _locked(folder: Path, make: Callable[[Path], None], suffix: str = "") -> Iterator[Path]:
    """Yield the path of something new that is locked."""
    _remove_leftovers_once(folder)
    while True:
        name = f".sam2_edge-{secrets.token_hex(8)}.part{suffix[:MAX_SUFFIX]}"
        path = folder / name
        make(path)
        with suppress(FileNotFoundError), _open(path) as descriptor:
            _lock(descriptor, wait=True)
            # Another process may have taken it for a leftover before it was locked.
            if path.exists():
                yield path
                return


@contextmanager
def _open(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock a file or folder; return False if another process has it or it cannot be locked."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # busy, or a file system without locks
        return False
    return True


def _remove_unless_locked(path: Path) -> None:
    with suppress(OSError), _open(path) as descriptor:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or not _lock(descriptor, wait=False):
            return
        if stat.S_ISDIR(status.st_mode):
            shutil.rmtree(path, ignore_errors=True)
        elif stat.S_ISREG(status.st_mode):
            path.unlink()
