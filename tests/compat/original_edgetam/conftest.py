"""What original EdgeTAM returns, from a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import ExportOptions
from sam2_edge.models.checkpoints import load_original
from tests.compat.original.video import write_clip
from tests.compat.original_edgetam.sessions import SESSIONS, SIZE, Results
from tests.helpers.once import once_per_run

PACKAGE = Path(sys.prefix) / "edgetam"
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Judged:
    """The original's weights and results in a folder."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "random.pt"

    def results(self, name: str) -> Results:
        with np.load(self.folder / f"{name}.npz") as arrays:
            return dict(arrays)


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Run the original in its own process, as its package has the name of SAM 2's: sam2."""
    if not (PACKAGE / "sam2").is_dir():
        pytest.skip("the package edgetam-dimos 1.0.1 is not installed")
    return Judged(once_per_run(tmp_path_factory)("original_edgetam", _judge))


def _judge(folder: Path) -> None:
    folder.mkdir()
    for session in SESSIONS:
        write_clip(folder / session.name, session.frames, session.size)
    done = subprocess.run(
        [sys.executable, "-m", "tests.compat.original_edgetam.judge", str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def bundle(judged: Judged, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the original's weights, whose memory is not rounded."""

    def export(folder: Path) -> None:
        loaded = load_original(judged.checkpoint, image_size=SIZE)
        export_bundle(loaded, folder, ExportOptions(memory_rounding="none"))

    return once_per_run(tmp_path_factory)("original_edgetam_bundle", export)
