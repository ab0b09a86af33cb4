"""A process that can open no more files."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Use up the file descriptors of this process until the block ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = os.open(os.devnull, os.O_RDONLY)
    held = [first]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (first + 1, hard))
        with suppress(OSError):
            while True:
                held.append(os.dup(first))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)
