"""A short form of `benchmarks/serve_load.py`, without its rates."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "serve_load.py"


@pytest.mark.slow
def test_the_server_withstands_attacks(tmp_path: Path) -> None:
    report = tmp_path / "load.json"
    phases = ("viewers-20", "idle", "bad-messages", "other-origins", "malformed", "prompts")
    done = subprocess.run(
        [sys.executable, SCRIPT, "--seconds", "1", "--json", report, "--phases", *phases],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert report.exists(), done.stderr
    found = json.loads(report.read_text())
    assert found["problems"] == []
    assert all(figures["fps"] > 0 for figures in found["phases"].values())
