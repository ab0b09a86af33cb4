"""The most memory that a process takes which does nothing but track: each contender in its own.

    python -m sam2_edge.proof.peak_memory BUNDLE|pytorch:BUNDLE VIDEO

prints the peak resident size in bytes after a full memory, and on a GPU what was taken of it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sam2_edge.bundle import load_bundle
from sam2_edge.errors import BackendError, without_traceback
from sam2_edge.proof.bench import FILLING_FRAMES
from sam2_edge.proof.contenders import BundleContender, Contender, PyTorchContender
from sam2_edge.proof.references import model_of
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.sources import FrameRange, open_source

PYTORCH = "pytorch:"


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes of host memory, and of device memory; None without a GPU."""

    host: int
    device: int | None


def peak_of(contender: str, video: Path) -> Peak:
    """Peak memory of a contender in a process of its own, tracking a click in a video's middle.

    contender: a bundle, or "pytorch:" and a bundle for the model that it was made from.

    Raises BackendError when that process fails.
    """
    done = subprocess.run(  # noqa: S603 # this module itself
        [sys.executable, "-m", "sam2_edge.proof.peak_memory", contender, str(video)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise BackendError(f"measuring the memory of {contender} failed: {last[0]}")
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def _contender(name: str) -> Contender:
    bundle = load_bundle(name.removeprefix(PYTORCH))
    if not name.startswith(PYTORCH):
        return BundleContender(bundle, staged=False)
    return PyTorchContender(model_of(bundle.manifest, None).model)


def _host_bytes() -> int:
    """The peak of this program alone: `ru_maxrss` counts the parent's memory at the fork too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return 1024 * int(kilobytes)


def _device_bytes() -> int | None:
    """What is taken of the GPU's memory, by whomever; None without a GPU."""
    from sam2_edge.runtime.cuda import bindings, checked

    try:
        free, total = checked(bindings().cudaMemGetInfo(), "reading free GPU memory")
    except BackendError:
        return None
    return int(total - free)


def main() -> None:
    """Track, and print the peak as JSON."""
    name, video = sys.argv[1:]
    contender = _contender(name)
    for frame in open_source(video, FrameRange(0, FILLING_FRAMES + 2)):
        height, width = frame.picture.shape[:2]
        click = Prompt(1, points=[(width // 2, height // 2)])
        contender.step(frame.picture, [click] if frame.index == 0 else ())
    sys.stdout.write(json.dumps({"host": _host_bytes(), "device": _device_bytes()}) + "\n")


if __name__ == "__main__":
    with without_traceback():
        main()
