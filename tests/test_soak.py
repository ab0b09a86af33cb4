"""Short forms of `make soak` and `make soak-million`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sam2_edge import Bundle

FOLDER = Path(__file__).parent.parent / "benchmarks"


def soak(report: Path, *arguments: object, script: str = "soak.py") -> dict[str, Any]:
    """Run a script; returns its figures."""
    done = subprocess.run(
        [sys.executable, FOLDER / script, *map(str, arguments), "--json", report],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    return found


@pytest.mark.slow
def test_the_loop_withstands_faults_viewers_and_commands(tmp_path: Path) -> None:
    found = soak(tmp_path / "soak.json", "--frames", 596)
    assert found["tracked"] == 596
    assert found["reconnects"] >= 1
    assert found["commands"] > 20
    assert found["j_first"] > 0.4


@pytest.mark.slow
def test_a_random_model_withstands_many_frames(small_bundle: Bundle, tmp_path: Path) -> None:
    options = ("--model", small_bundle.path, "--threads", 1, "--pixels", 64, "--objects", 1)
    found = soak(tmp_path / "soak.json", "--frames", 1500, *options)
    assert found["finished"]
    assert found["tracked"] == 1500
    assert found["stalls"] >= 1
    assert found["lines"] >= 1500
    assert found["j_first"] is None


@pytest.mark.slow
def test_streams_fail_independently(small_bundle: Bundle, tmp_path: Path) -> None:
    options = ("--model", small_bundle.path, "--threads", 1, "--pixels", 64, "--objects", 1)
    report = tmp_path / "soak.json"
    found = soak(report, "--frames", 600, *options, script="soak_streams.py")
    assert found["failed"] > 10
    streams = found["streams"]
    assert [s["output_failures"] for s in streams.values()] == [0, 0, 1]
    assert all(s["tracked"] >= 600 <= s["lines"] for s in streams.values())
    assert sum(s["reconnects"] for s in streams.values()) >= 2
