"""A short form of `benchmarks/host_time.py`, without its figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.helpers.late_device import LateDevice


def test_host_time_is_measured_for_every_engine_and_number_of_objects(tmp_path: Path) -> None:
    LateDevice(tmp_path)  # skips where it cannot be compiled
    short = ["--frames", "20", "--model-size", "64", "--frame", "160x90", "--objects", "1", "3"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.host_time", *short],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, head, *rows = done.stdout.splitlines()
    assert head.split() == ["engines", "objects", "prepare", "track", "mask"]
    found = [row.split() for row in rows]
    assert [row[:2] for row in found] == [
        [engines, objects] for engines in ("tensorrt", "tensorrt-rtx") for objects in ("1", "3")
    ]
    assert all(float(ms) >= 0 for row in found for ms in row[2:])
