"""ONNX Runtime's telemetry stays off wherever sam2_edge is imported first.

It starts with the import: it writes an identifier to the temporary folder at once, and looks up its
maker's server some nine seconds later. The identifier is what a short test can see.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VARIABLE = "ORT_DISABLE_TELEMETRY"
OPEN = ["-c", "import sam2_edge; sam2_edge.VideoTracker('nano')"]
USES = {
    "a library's user": [
        "-c",
        "import sam2_edge; from sam2_edge.runtime.backends.ort_cpu import OnnxRuntimeCpu;"
        "OnnxRuntimeCpu(sam2_edge.load_bundle('nano'))",
    ],
    "a worker that imports one module": [
        "-c",
        "import sam2_edge.evaluation.vos.runner, onnxruntime",
    ],
    "the command line": ["-c", "from sam2_edge.cli.entry import main; main()", "doctor"],
}


def left_behind(arguments: list[str], folder: Path, value: str | None) -> list[str]:
    """Files that a fresh interpreter leaves in its temporary folder."""
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    environment.pop(VARIABLE, None)
    if value is not None:
        environment[VARIABLE] = value
    subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=ROOT, check=True, capture_output=True
    )
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("arguments", USES.values(), ids=USES)
def test_nothing_is_written_for_telemetry(arguments: list[str], tmp_path: Path) -> None:
    assert left_behind(arguments, tmp_path, value=None) == []


def test_an_empty_variable_leaves_telemetry_off(tmp_path: Path) -> None:
    assert left_behind(OPEN, tmp_path, value="") == []


def test_a_user_may_switch_telemetry_on(tmp_path: Path) -> None:
    plain, ours = tmp_path / "plain", tmp_path / "ours"
    plain.mkdir()
    ours.mkdir()
    if not left_behind(["-c", "import onnxruntime"], plain, value=None):
        pytest.skip("this onnxruntime has no telemetry")
    assert left_behind(OPEN, ours, value="0") != []
