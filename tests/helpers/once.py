"""Folders that are made once per test run and shared by its processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


class Once:
    """Makes folders below `folder` by name, whichever process needs one first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def __call__(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the folder that `make` has made at the path that it was given."""
        target, part = self._folder / name, self._folder / f"{name}.part"
        with (self._folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():
                make(part)
                part.rename(target)
        return target


def once_per_run(factory: pytest.TempPathFactory) -> Once:
    """Return the folders of this test run."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    return Once(folder / "once")
