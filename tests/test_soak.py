"""A short form of `make soak`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "soak.py"


@pytest.mark.slow
def test_the_loop_withstands_faults_viewers_and_commands(tmp_path: Path) -> None:
    report = tmp_path / "soak.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--frames", "596", "--json", report],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    assert found["tracked"] == 596
    assert found["reconnects"] >= 1
    assert found["commands"] > 20
    assert found["j_first"] > 0.4
