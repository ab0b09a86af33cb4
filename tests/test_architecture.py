"""Import contracts, imports without torch, and the public interface."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import sam2_edge
from sam2_edge import Bundle
from tests.helpers.interpreter import HEAVY, run_python, run_python_without_heavy

ROOT = Path(__file__).parent.parent

NEED_HEAVY = (
    "sam2_edge.calibration",
    "sam2_edge.evaluation.pytorch",
    "sam2_edge.evaluation.pytorch_loop",
    "sam2_edge.export",
    "sam2_edge.models",
)


def test_imports_flow_down() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_modules_for_a_device_import_without_heavy_packages() -> None:
    names = [m.name for m in pkgutil.walk_packages(sam2_edge.__path__, "sam2_edge.")]
    free = [n for n in names if not n.startswith(NEED_HEAVY)]
    assert len(free) > 20
    run_python_without_heavy(
        f"import importlib\nfor name in {free}:\n    importlib.import_module(name)\n"
    )


def test_tracking_works_without_torch(small_bundle: Bundle) -> None:
    run_python_without_heavy(
        "import numpy as np, sam2_edge\n"
        f"tracker = sam2_edge.VideoTracker({str(small_bundle.path)!r})\n"
        "frame = np.zeros((64, 64, 3), np.uint8)\n"
        "tracker.track(frame, [sam2_edge.Prompt(1, points=[(5, 5)])])\n"
        "assert tracker.track(frame)[1].mask.shape == (64, 64)\n"
    )


def test_tracking_does_not_import_an_installed_torch(small_bundle: Bundle) -> None:
    run_python(
        "import sys, numpy as np, sam2_edge, sam2_edge.cli.main\n"
        f"tracker = sam2_edge.VideoTracker({str(small_bundle.path)!r})\n"
        "frame = np.zeros((64, 64, 3), np.uint8)\n"
        "tracker.track(frame, [sam2_edge.Prompt(1, points=[(5, 5)])])\n"
        "tracker.track(frame)[1].to_rle()\n"
        f"assert not sys.modules.keys() & set({HEAVY!r})\n"
    )


def test_export_without_its_extra_names_it(tmp_path: Path) -> None:
    run_python_without_heavy(
        f"output = {str(tmp_path / 'o')!r}\n"
        "import sys; sys.argv = ['sam2-edge', 'export', 'edgetam', '--output', output]\n"
        "import contextlib, io\n"
        "from sam2_edge.cli.main import main\n"
        "shown = io.StringIO()\n"
        "try:\n"
        "    with contextlib.redirect_stderr(shown): main()\n"
        "except SystemExit as done: assert done.code == 1\n"
        "assert \"pip install 'sam2_edge[export]'\" in shown.getvalue()\n"
    )


def test_the_public_interface_is_sorted_and_complete() -> None:
    assert sam2_edge.__all__ == sorted(sam2_edge.__all__)
    assert all(hasattr(sam2_edge, name) for name in sam2_edge.__all__)


def test_the_links_at_the_root_point_at_the_subpackages() -> None:
    for name in ("calibration", "export", "models", "runtime"):
        assert (ROOT / name).is_symlink()
        assert (ROOT / name).resolve() == ROOT / "sam2_edge" / name
