"""Temporary files are private to their owner while it lives, and cleaned after it was killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sam2_edge import SinkError
from sam2_edge.bundle.storage import atomic_file, atomic_folder
from sam2_edge.bundle.temporary import (
    remove_leftovers,
    scratch_folder,
    temporary_file,
    temporary_folder,
)

KILLED = """
import os, signal, sys
from pathlib import Path
from sam2_edge.bundle.temporary import temporary_file, temporary_folder
place = Path(sys.argv[1])
with temporary_folder(place) as folder, temporary_file(place, ".png"):
    (folder / "graph.onnx").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    with atomic_folder(tmp_path / "bundle", error=SinkError):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as folder, temporary_file(tmp_path, ".png") as file:
        remove_leftovers(tmp_path)
        assert set(tmp_path.iterdir()) == {folder, file}
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / ".sam2_edge-notes.part").touch()
    (tmp_path / f".sam2_edge-{'0' * 16}.part").symlink_to(tmp_path / "precious")
    before = set(tmp_path.iterdir())
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == before


def test_cleaning_a_folder_that_cannot_be_read_does_nothing(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "missing")


@pytest.mark.parametrize("name", ["n" * 255, f"a.{'s' * 253}", "ü" * 127])
def test_the_longest_name_that_a_file_system_takes_can_be_written(
    tmp_path: Path, name: str
) -> None:
    with atomic_file(tmp_path / name) as partial:
        partial.write_text("text")
    with atomic_folder(tmp_path / "folders" / name, error=SinkError):
        pass
    assert (tmp_path / name).read_text() == "text"
    assert (tmp_path / "folders" / name).is_dir()


def test_files_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with atomic_file(tmp_path / "ours"):
        pass
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_scratch_is_private_and_temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == []


def test_without_a_place_for_scratch_the_error_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    with pytest.raises(SinkError, match="/nowhere.*set TMPDIR"), scratch_folder():
        pass
