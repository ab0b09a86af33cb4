"""Whatever comes from outside, there is a result or one of our errors: no crash, no hang."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sam2_edge.runtime.sources import decoder, image_file
from tests.fuzz import CORPUS
from tests.fuzz.target import MAX_PIXELS
from tests.fuzz.targets import TARGETS
from tests.fuzz.web import running

RUNS = 100
"""New inputs per target."""

FAULTY = """
import os, sys, time
from pathlib import Path
from tests.fuzz.__main__ import run
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

def fail(data, folder):
    if data == b"crash":
        os.abort()
    if data == b"hang":
        end_s = time.process_time() + 2.1
        while time.process_time() < end_s:
            pass
    if data == b"error":
        raise ValueError
    if data == b"bomb":
        b"a" * (600 << 20)

for kind in (b"crash", b"hang", b"error", b"bomb"):
    TARGETS["faulty"] = Target(fail, lambda: [b"good", kind])
    print(run("faulty", Path(sys.argv[1], kind.decode()), seconds=60, runs=1).findings > 0)
"""


@pytest.fixture(scope="module", autouse=True)
def _server_ends() -> Iterator[None]:
    yield
    running.close()


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_are_answered(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for module in (decoder, image_file):
        monkeypatch.setattr(module, "MAX_PIXELS", MAX_PIXELS)
    target = TARGETS[name]
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    for data in [*target.seeds(), *kept]:
        target.feed(data, tmp_path)


def test_new_inputs_are_answered(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    command = [sys.executable, "-m", "tests.fuzz", "--runs", str(RUNS), "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_crashes_hangs_errors_and_bombs_are_found(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    command = [sys.executable, "-c", FAULTY, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 4
