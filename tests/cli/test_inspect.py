"""`sam2-edge inspect`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.cli import SCRIPT, run


def test_inspect_prints_the_bundle(bundle: str) -> None:
    shown = subprocess.run([SCRIPT, "inspect", bundle], capture_output=True, text=True, check=True)
    assert "128 x 128 pixels" in shown.stdout
    assert "M x B x 64 x 8 x 8" in shown.stdout
    as_json = subprocess.run([SCRIPT, "inspect", "--json", bundle], capture_output=True, check=True)
    assert json.loads(as_json.stdout)["memory"]["rounding"] == "bfloat16"


def test_inspect_prints_markup_in_names_literally(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bundle: str, tmp_path: Path
) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["model"]["source"] = "runs[old]/[/x].pt"  # rich's markup, to rich
    (copy / "manifest.json").write_text(json.dumps(manifest))

    assert run(monkeypatch, "inspect", copy) == 0

    assert "runs[old]/[/x].pt" in capsys.readouterr().out
