"""Opens files that are named by users, or by other files, without trusting the name."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from sam2_edge.errors import Sam2EdgeError, SourceError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_file(path: str | Path, *, error: type[Sam2EdgeError] = SourceError) -> BinaryIO:
    """Open a regular file for reading; links are followed.

    C libraries take paths as text: some crash on names that are not UTF-8, or read a colon as the
    end of a protocol. Hand them the open file, or its bytes.

    Args:
        path: Any text, also with bytes that are not UTF-8 (as `os.fsdecode` gives them).
        error: Class of the error to raise.

    Raises:
        Sam2EdgeError: Of the class `error`, if there is no such file, it cannot be opened, or it is
            a folder, a pipe, a socket or a device.
    """
    try:
        # A pipe without a writer would block for ever.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as reason:
        raise error(f"{path} does not exist; check the path") from reason
    except OSError as reason:
        raise error(f"{path} cannot be opened: {reason.strerror}; check the path") from reason
    except ValueError as reason:  # a NUL, or half of a surrogate pair
        raise error(f"{path} cannot be the name of a file; check the path") from reason
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        kind = next((name for test, name in _KINDS if test(mode)), "no regular file")
        raise error(f"{path} is {kind}; give a file")
    return os.fdopen(number, "rb")


def read_file(
    path: str | Path, max_bytes: int, *, error: type[Sam2EdgeError] = SourceError
) -> bytes:
    """Read a regular file of at most `max_bytes`; see `open_file` for the errors."""
    with open_file(path, error=error) as file:
        try:
            content = file.read(max_bytes + 1)
        except OSError as reason:
            raise error(f"{path} cannot be read: {reason.strerror}; copy it again") from reason
    if len(content) > max_bytes:
        raise error(f"{path} is larger than {max_bytes >> 20} MiB; give a smaller file")
    return content
