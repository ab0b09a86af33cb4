"""`sam2-edge inspect`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sam2_edge import load_bundle
from sam2_edge.bundle.storage import save_manifest
from tests.helpers.cli import SCRIPT, run
from tests.helpers.engines import as_engines


def test_inspect_prints_the_bundle(bundle: str) -> None:
    shown = subprocess.run([SCRIPT, "inspect", bundle], capture_output=True, text=True, check=True)
    assert "128 x 128 pixels" in shown.stdout
    assert "R x 64 x 8 x 8" in shown.stdout
    as_json = subprocess.run([SCRIPT, "inspect", "--json", bundle], capture_output=True, check=True)
    assert json.loads(as_json.stdout)["memory"]["rounding"] == "bfloat16"


def test_inspect_prints_the_memory_and_the_limits_of_engines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bundle: str, tmp_path: Path
) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    engines = as_engines(load_bundle(copy)).manifest
    graphs = {
        graph: entry.model_copy(
            update={
                "backend": "tensorrt-rtx",
                "engine": entry.engine.model_copy(update={"activation_bytes": (i + 1) * 2**20}),
            }
        )
        for i, (graph, entry) in enumerate(engines.graphs.items())
        if entry.engine
    }
    save_manifest(copy, engines.model_copy(update={"graphs": graphs}))

    assert run(monkeypatch, "inspect", copy) == 0

    shown = capsys.readouterr().out
    assert "GPU memory: 6 MiB of activation memory, shared by all engines" in shown
    assert "memory_attention 2," in shown
    assert re.search(r"mask_decoder +4 +B 1-8, N 1-4", shown)


def test_inspect_prints_markup_in_names_literally(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bundle: str, tmp_path: Path
) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["model"]["source"] = "runs[old]/[/x].pt"  # rich's markup, to rich
    (copy / "manifest.json").write_text(json.dumps(manifest))

    assert run(monkeypatch, "inspect", copy) == 0

    assert "runs[old]/[/x].pt" in capsys.readouterr().out
