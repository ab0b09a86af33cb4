"""Errors that a user can act on: each message names the value, the limit and the remedy.

Sam2EdgeError
├── BundleError       a bundle that is missing, damaged or unsuitable
├── CheckpointError   weights that do not fit a known model
├── ExportError       a graph that cannot be exported or differs from PyTorch
├── BackendError      a backend that is missing or cannot run a graph
├── PromptError       an invalid point, box or mask
├── SourceError       an unreadable video, image or camera
├── SinkError         a result that cannot be written
│   └── LostResultError   one result that was not sent; the next may be
└── LoopError         a command that a camera loop does not accept
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "BackendError",
    "BundleError",
    "CheckpointError",
    "ExportError",
    "LoopError",
    "LostResultError",
    "PromptError",
    "Sam2EdgeError",
    "SinkError",
    "SourceError",
    "message_of",
    "printable",
    "reason_of",
    "without_traceback",
]


_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Escape what a terminal would obey and what UTF-8 cannot hold, as in `caf\xe9.png`.

    Names of files may contain control characters, and bytes that are not UTF-8.
    """
    return _UNPRINTABLE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name, as `os.fsdecode` gives it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class Sam2EdgeError(Exception):
    """Base class of every error that sam2_edge raises on purpose; its message is printable."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class BundleError(Sam2EdgeError):
    """Raised for a bundle that is missing, damaged, or made for something else."""


class CheckpointError(Sam2EdgeError):
    """Raised for weights that cannot be loaded or do not fit the architecture."""


class ExportError(Sam2EdgeError):
    """Raised for a graph that cannot be exported or fails its comparison with PyTorch."""


class BackendError(Sam2EdgeError):
    """Raised for a backend that is missing or fails to run a graph."""


class PromptError(Sam2EdgeError):
    """Raised for a prompt that is malformed, empty or outside the frame."""


class SourceError(Sam2EdgeError):
    """Raised for a source of frames that is missing, unreadable or ends early."""


class SinkError(Sam2EdgeError):
    """Raised for a result that cannot be written."""


class LostResultError(SinkError):
    """Raised for one result that was not sent; the sink continues with the next."""


class LoopError(Sam2EdgeError):
    """Raised for a command to a camera loop that has ended, or for which too many wait already."""


_REMEDIES = {
    errno.EACCES: "give another path, or change its permissions",
    errno.EPERM: "give another path, or change its permissions",
    errno.EROFS: "give a path on a writable file system",
    errno.ENOSPC: "free some space, or give a path elsewhere",
    errno.EDQUOT: "free some space, or give a path elsewhere",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOTDIR: "part of the path is a file; give another path",
    errno.EEXIST: "a file has the name of a folder; give another path",
    errno.ELOOP: "its links lead in a circle or to an unexpected place; give the file itself",
    errno.EMFILE: "close other files, or raise the limit with ulimit -n",
    errno.ENOMEM: "free some memory",
}
"""What to do about an error of the operating system, by its number."""


def reason_of(error: OSError) -> str:
    """Return the operating system's reason for an error, and what to do about it."""
    remedy = _REMEDIES.get(error.errno or 0, "check the path, or give another")
    return f"{error.strerror or error}; {remedy}"


def message_of(error: Sam2EdgeError | OSError | MemoryError) -> str:
    """Return one line that says what failed and what to do about it."""
    if isinstance(error, MemoryError):
        return f"not enough memory ({error or 'none is left'}); free some, or use smaller inputs"
    if isinstance(error, Sam2EdgeError):
        return str(error)
    paths = [
        os.fsdecode(p) for p in (error.filename, error.filename2) if isinstance(p, str | bytes)
    ]
    return printable(": ".join([*([" to ".join(paths)] if paths else []), reason_of(error)]))


@contextmanager
def without_traceback() -> Iterator[None]:
    """End the process with an error's message, for modules run with `python -m`."""
    try:
        yield
    except (Sam2EdgeError, OSError, MemoryError) as error:
        sys.exit(f"error: {message_of(error)}")
