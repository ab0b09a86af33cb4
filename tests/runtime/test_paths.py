"""Files are opened only if they are files, whatever their names are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sam2_edge import PromptError, Sam2EdgeError, SourceError
from sam2_edge.errors import printable
from sam2_edge.runtime.paths import open_file, read_file

LATIN_1 = os.fsdecode(b"caf\xe9.png")


@pytest.mark.parametrize("name", [LATIN_1, "10:00.png", "a b.png", "-x.png", "éß漢.png"])
def test_a_file_of_any_name_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"content")
    assert read_file(tmp_path / name, 7) == b"content"


def test_what_is_not_a_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, reason in (
        (tmp_path / "pipe.png", "is a named pipe"),
        (tmp_path, "is a folder"),
        (Path("/dev/zero"), "is a device"),
        (tmp_path / "loop", "cannot be opened"),
        (tmp_path / "none.png", "does not exist"),
        (tmp_path / ("n" * 300), "cannot be opened"),
        (tmp_path / "a\0b", "cannot be the name"),
        (tmp_path / "\ud800", "cannot be the name"),
    ):
        with pytest.raises(SourceError, match=reason):
            open_file(path)


def test_the_caller_names_the_error_and_the_largest_size(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(2**20 + 1))
    with pytest.raises(PromptError, match="larger than 1 MiB"):
        read_file(tmp_path / "large", 2**20, error=PromptError)


def test_a_message_can_be_printed_whatever_the_name(tmp_path: Path) -> None:
    for name, shown in (
        (LATIN_1, r"caf\xe9.png"),
        ("\ud800", r"\ud800"),
        ("a\x1b[2Jb\r", r"a\x1b[2Jb\x0d"),
        ("two\nlines\té", "two\nlines\té"),
    ):
        assert printable(name) == shown
        assert str(Sam2EdgeError(name)) == shown
    with pytest.raises(SourceError, match=r"caf\\xe9.png does not exist"):
        open_file(tmp_path / LATIN_1)
