"""`sam2-edge doctor`."""

from __future__ import annotations

import re

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
