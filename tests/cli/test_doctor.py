"""`sam2-edge doctor`."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from tests.helpers.cli import run


def test_doctor_lists_the_machine_and_recommends_a_backend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "doctor") == 0
    shown = capsys.readouterr().out
    for name in ("GPU", "tensorrt-rtx", "JetPack", "onnxruntime", "GStreamer in OpenCV"):
        assert re.search(rf"^{name} +\S", shown, re.MULTILINE), name
    assert re.search(r"^Best here: (cpu|cuda|tensorrt)", shown, re.MULTILINE)


def test_doctor_reports_that_there_is_no_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    assert run(monkeypatch, "doctor") == 0
    assert re.search("temporary folder +none: .*set TMPDIR", capsys.readouterr().out)


def test_doctor_reports_a_temporary_folder_that_is_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    assert run(monkeypatch, "doctor") == 0
    shown = "".join(capsys.readouterr().out.split())  # the path is folded
    assert "missing,whichcannotbewritten" in shown
