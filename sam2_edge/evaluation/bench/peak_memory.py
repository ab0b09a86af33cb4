"""The most memory that a process takes which does nothing but track: each contender in its own.

    python -m sam2_edge.evaluation.bench.peak_memory BUNDLE|pytorch:BUNDLE VIDEO BACKEND THREADS

follows one object and prints the peak resident size in bytes with a full memory, and on a GPU how
much more of it is taken than before. THREADS 0 leaves the number open.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sam2_edge.bundle import load_bundle
from sam2_edge.errors import BackendError, without_traceback
from sam2_edge.evaluation.bench.runner import UNCOUNTED_FRAMES
from sam2_edge.evaluation.bench.targets import BenchTarget, BundleTarget, PyTorchTarget
from sam2_edge.evaluation.verify.references import model_of
from sam2_edge.runtime.backends import BackendName
from sam2_edge.runtime.backends.cuda.driver import bindings, checked
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.sources import FrameRange
from sam2_edge.runtime.sources.video import open_source

PYTORCH = "pytorch:"


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes of host memory, and of device memory; None where the contender uses none."""

    host: int
    device: int | None


def peak_of(
    contender: str, video: Path, backend: BackendName = "auto", threads: int | None = None
) -> Peak:
    """Peak memory of a contender in a process of its own, tracking a click in a video's middle.

    contender: a bundle, or "pytorch:" and a bundle for the model that it was made from.

    Raises BackendError when that process fails.
    """
    done = subprocess.run(  # noqa: S603 # this module itself
        [
            *(sys.executable, "-m", "sam2_edge.evaluation.bench.peak_memory"),
            *(contender, str(video), backend, str(threads or 0)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise BackendError(f"measuring the memory of {contender} failed: {last[0]}")
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def _contender(name: str, backend: BackendName, threads: int | None) -> BenchTarget:
    bundle = load_bundle(name.removeprefix(PYTORCH))
    if not name.startswith(PYTORCH):
        return BundleTarget(bundle, backend=backend, threads=threads, staged=False)
    return PyTorchTarget(model_of(bundle.manifest, None).model, threads=threads)


def _host_bytes() -> int:
    """The peak of this program alone: `ru_maxrss` counts the parent's memory at the fork too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return 1024 * int(kilobytes)


def _device_bytes() -> int:
    """What is taken of the GPU's memory, by whomever; 0 without a GPU."""
    try:
        free, total = checked(bindings().cudaMemGetInfo(), "reading free GPU memory")
    except BackendError:
        return 0
    return int(total - free)


def main() -> None:
    """Track, and print the peak as JSON."""
    name, video, backend, threads = sys.argv[1:]
    before = _device_bytes() if backend != "cpu" else 0
    contender = _contender(name, cast("BackendName", backend), int(threads) or None)
    for frame in open_source(video, FrameRange(0, UNCOUNTED_FRAMES)):
        height, width = frame.picture.shape[:2]
        click = Prompt(1, points=[(width // 2, height // 2)])
        contender.step(frame.picture, [click] if frame.index == 0 else ())
    device = None if contender.device == "cpu" else _device_bytes() - before
    sys.stdout.write(json.dumps({"host": _host_bytes(), "device": device}) + "\n")


if __name__ == "__main__":
    with without_traceback():
        main()
