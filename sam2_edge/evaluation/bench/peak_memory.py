"""Peak memory of tracking, measured in a separate process per target.

    python -m sam2_edge.evaluation.bench.peak_memory TARGET BUNDLE VIDEO BACKEND THREADS

tracks one object until its memory is full, and prints the peak resident set size in bytes and, on a
GPU, the increase in used GPU memory. THREADS 0 means the default number.
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
from sam2_edge.evaluation.bench.limits import UNCOUNTED_FRAMES
from sam2_edge.evaluation.bench.targets import open_target
from sam2_edge.runtime.backends import BackendName
from sam2_edge.runtime.backends.cuda.driver import driver
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.sources import FrameRange
from sam2_edge.runtime.sources.video import open_source


@dataclass(frozen=True, slots=True)
class Peak:
    """Peak host memory and device memory in bytes; `device` is None on the CPU."""

    host: int
    device: int | None


def measure_peak(
    target: str,
    bundle: Path,
    video: Path,
    backend: BackendName = "auto",
    threads: int | None = None,
) -> Peak:
    """Measure the peak memory of a target (see `open_target`) in a separate process.

    Raises:
        BackendError: If the process fails.
    """
    done = subprocess.run(  # noqa: S603 # this module itself
        [
            *(sys.executable, "-m", "sam2_edge.evaluation.bench.peak_memory"),
            *(target, str(bundle), str(video), backend, str(threads or 0)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise BackendError(f"measuring the memory of {target} failed: {last[0]}")
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def _host_bytes() -> int:
    """Return this program's peak; `ru_maxrss` would include the parent's memory at the fork."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return 1024 * int(kilobytes)


def _device_bytes() -> int:
    """Return the GPU memory in use by all processes; 0 without a GPU."""
    try:
        free, total = driver().memory_info()
    except BackendError:
        return 0
    return total - free


def main() -> None:
    """Track one object and print the peak as JSON."""
    name, bundle, video, backend, threads = sys.argv[1:]
    before = _device_bytes() if backend != "cpu" else 0
    target = open_target(
        name,
        load_bundle(bundle),
        backend=cast("BackendName", backend),
        threads=int(threads) or None,
        staged=False,
    )
    for frame in open_source(video, FrameRange(0, UNCOUNTED_FRAMES)):
        height, width = frame.picture.shape[:2]
        click = Prompt(1, points=[(width // 2, height // 2)])
        target.step(frame.picture, [click] if frame.index == 0 else ())
    device = None if target.device == "cpu" else _device_bytes() - before
    sys.stdout.write(json.dumps({"host": _host_bytes(), "device": device}) + "\n")


if __name__ == "__main__":
    with without_traceback():
        main()
