"""Shell completion: what it offers, and that it does without heavy packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sam2_edge.bundle.manifest import MANIFEST_FILE
from sam2_edge.bundle.names import BUNDLED
from sam2_edge.cli import options

HEAVY = ("numpy", "cv2", "pydantic", "PIL", "av", "onnxruntime", "torch", "rich")

_PROGRAM = f"""
import sys
sys.argv = ["sam2-edge", *sys.argv[1:]]
from sam2_edge.cli.entry import main
try:
    main()
except SystemExit:
    pass
print("heavy:", *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""


def sam2_edge(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own, which then names the heavy modules it imported."""
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def complete(words: str) -> list[str]:
    typed = f"sam2-edge {words}"
    position = len(typed.split(" ")) - 1
    shown = sam2_edge(
        _SAM2_EDGE_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=str(position)
    )
    assert shown.stderr.splitlines()[-1] == "heavy:"
    return [line.partition(",")[2] for line in shown.stdout.splitlines()]


def test_commands_and_options_are_completed() -> None:
    assert complete("se") == ["segment", "serve"]
    assert complete("track --recent") == ["--recent-memories"]


@pytest.mark.parametrize("words", ["inspect ", "segment x.png --bundle ", "bench "])
def test_bundles_are_completed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str) -> None:
    (tmp_path / "out" / "tiny").mkdir(parents=True)
    (tmp_path / "out" / "tiny" / MANIFEST_FILE).touch()
    (tmp_path / "out" / "clips").mkdir()
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / MANIFEST_FILE).touch()
    monkeypatch.chdir(tmp_path)

    assert complete(words) == ["nano", "edgetam-nano", "small", "out/"]
    assert complete(f"{words}out/") == ["out/tiny", "out/clips/"]
    assert complete(f"{words}n") == ["nano"]


def test_completion_knows_the_names_in_the_package() -> None:
    assert tuple(BUNDLED) == options.BUNDLED
    assert options.MANIFEST == MANIFEST_FILE


@pytest.mark.parametrize("command", ["", "doctor", "inspect", "segment", "track", "bench", "score"])
def test_help_does_without_heavy_packages(command: str) -> None:
    shown = sam2_edge(*command.split(), "--help")
    assert shown.stdout.startswith("Usage: ")
    assert shown.stderr.splitlines()[-1] == "heavy:"


def test_the_package_is_a_program_too() -> None:
    command = [sys.executable, "-m", "sam2_edge", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("sam2-edge, version ")
