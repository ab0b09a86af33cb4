"""Runs a step of `benchmarks/gpu.py` on the late device, as `benchmarks.gpu_runner` does on a GPU.

The GPU is of a compute capability that TensorRT-RTX does not know; PyTorch runs on the CPU. Further
down are steps that fail.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_runner, gpu_steps
from benchmarks.gpu_runner import Workspace
from sam2_edge import Bundle, load_bundle
from sam2_edge.bundle.storage import save_manifest
from sam2_edge.export.tensorrt.options import EngineOptions
from tests.helpers.engines import as_engines

COMMAND = (sys.executable, "-m", "tests.helpers.gpu_benchmark")

CAPABILITY = (9, 0)


def build_engines(
    source: Bundle, target: Path, options: EngineOptions, *, overwrite: bool
) -> Bundle:
    """Engines of the late device are ONNX files."""
    assert overwrite
    shutil.copytree(source.path, target)
    manifest = as_engines(source, options.variant, attention=1).manifest
    graphs = {}
    for graph, entry in manifest.graphs.items():
        engine = entry.engine.model_copy(update={"compute_capabilities": (CAPABILITY,)})
        update = {"backend": options.variant, "engine": engine}
        graphs[graph] = entry.model_copy(update=update)
    save_manifest(target, manifest.model_copy(update={"graphs": graphs}))
    return load_bundle(target)


def main(job: Path) -> int:
    from tests.helpers.late_device import LateDevice
    from tests.helpers.late_device.backends import late_backend

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        device = LateDevice(Path(folder))
        device.settings.major, device.settings.minor = CAPABILITY
        device.install(patch)
        if "gpu_pytorch" not in job.read_text():  # exports are checked with the real ONNX Runtime
            late_backend("cuda", device, patch)
            late_backend("tensorrt", device, patch)
        patch.setattr(gpu_steps, "build_engines", build_engines)
        patch.setattr(gpu_steps, "_no_pytorch", lambda: None)
        code = gpu_runner.main(job)
        device.check()
    return code


def good(_: Workspace, *, value: int = 1) -> Iterator[dict[str, Any]]:
    yield {"value": value}


def counts(work: Workspace) -> Iterator[dict[str, Any]]:
    """How often it has run."""
    file = work.folder / "count"
    file.write_text(file.read_text() + "x" if file.exists() else "x")
    yield {"value": len(file.read_text())}


def crashes(_: Workspace) -> Iterator[dict[str, Any]]:
    yield {"value": 1}
    os.kill(os.getpid(), signal.SIGSEGV)


def crashes_at_its_end(work: Workspace) -> Iterator[dict[str, Any]]:
    import atexit

    yield from good(work)
    atexit.register(os.abort)


def raises(_: Workspace) -> Iterator[dict[str, Any]]:
    raise ValueError("the first line\nthe second line")
    yield {}


def hangs(work: Workspace) -> Iterator[dict[str, Any]]:
    """Leaves a process of its own behind."""
    other = os.fork()
    if other == 0:
        time.sleep(600)
    (work.folder / "other").write_text(str(other))
    yield {"value": 1}
    time.sleep(600)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
