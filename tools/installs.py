"""Installs the wheel with each engine's extra into a fresh environment and runs it there.

    python -m tools.installs
    python -m tools.installs --python python3.10 --only cpu jetson

Runs up to where a GPU is needed, and says which error comes then. Needs a network and up to 6 GB in
.installs/. The OpenCV of JetPack, which the extra `jetson` expects on the system, is replaced by an
OpenCV from PyPI that was built for NumPy 1 as well; classic TensorRT cannot be tried without a GPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.aarch64 import build_wheel

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".installs"
SYSTEM = ["opencv-python==4.8.0.74", "numpy==1.26.4"]
"""Stands for what JetPack 6 brings."""

TRACK = ("track", "{clip}/JPEGImages/00000", "--prompts", "{clip}/prompts/00000.json", "--bundle")
BUILD = ("build-engines", "nano", "--overwrite", "--target")
NO_DRIVER = "NVIDIA driver"
# With CUDA and cuDNN found, only the driver's library is missing, on a machine without a GPU.
PROVIDER = """
import ctypes, pathlib, onnxruntime
onnxruntime.preload_dlls()
libraries = pathlib.Path(onnxruntime.__file__).parent / "capi"
try:
    ctypes.CDLL(str(libraries / "libonnxruntime_providers_cuda.so"))
except OSError as error:
    if "libcuda.so.1" not in str(error):
        raise
print("CUDA and cuDNN were found")
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A `sam2-edge` command, or -c and Python code, and a text that its output must have."""

    command: Sequence[str]
    expected: str


CASES: dict[str, list[Step]] = {
    "": [
        Step(["doctor"], "nothing yet; install one engine"),
        Step([*TRACK, "nano"], "install one engine: pip install 'sam2_edge[cpu]'"),
    ],
    "cpu": [
        Step(["doctor"], "Best here: cpu"),
        Step([*TRACK, "nano"], "object 1: present"),
        Step([*TRACK, "nano", "--backend", "cuda"], "then pip install 'sam2_edge[cuda]'"),
        Step([*TRACK, "nano", "--backend", "tensorrt"], "has no tensorrt engine"),
    ],
    "cuda": [
        Step(["doctor"], "CUDAExecutionProvider"),
        Step([*TRACK, "nano", "--backend", "cpu"], "object 1: present"),
        Step([*TRACK, "nano", "--backend", "cuda"], NO_DRIVER),
        Step(["-c", PROVIDER], "CUDA and cuDNN were found"),
    ],
    "tensorrt-rtx": [
        Step(["doctor"], "tensorrt-rtx           1."),
        Step(
            [*BUILD, "tensorrt-rtx", "--compute-capability", "8.6", "--output", "{clip}/rtx"],
            "memory_encoder",
        ),
        Step([*TRACK, "{clip}/rtx"], NO_DRIVER),
        Step([*TRACK, "nano", "--backend", "cpu"], "ONNX Runtime is not installed"),
    ],
    "jetson": [
        Step(["doctor"], "OpenCV                 4.8.0"),
        Step(
            [*BUILD, "tensorrt", "--output", "{clip}/engines"],
            "on a Jetson it comes with JetPack",
        ),
        Step([*TRACK, "nano"], "ONNX Runtime is not installed"),
        Step(["score", "{clip}/Annotations/00000", "{clip}/Annotations/00000"], "J&F 1.000"),
    ],
}


def main() -> None:
    """Try each extra; the exit code is 1 if an output was another one than expected."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="Python of the environments")
    parser.add_argument("--only", nargs="*", default=list(CASES), help="extras; '' for none")
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    wheel = build_wheel(FOLDER)
    clip = FOLDER / "clip"
    options = ["--frames", "4", "--seed", "55", "--no-photographs", "--overwrite"]
    command = Path(sys.executable).with_name("sam2-edge")
    subprocess.run([command, "synth", clip, *options], check=True)
    failures = 0
    for extra in arguments.only:
        python = install(arguments.python, wheel, extra)
        for step in CASES[extra]:
            failures += not passes(python, step, clip)
    sys.exit(1 if failures else 0)


def install(base: str, wheel: Path, extra: str) -> Path:
    """Install the wheel with an extra into a new environment; returns its Python."""
    environment = new_environment(base, extra or "base")
    python = environment / "bin/python"
    if extra == "jetson":
        system = new_environment(base, "system")
        pip(system / "bin/python", *SYSTEM)
        packages = next(system.glob("lib/*/site-packages"))
        # Behind the environment's own packages, as with --system-site-packages.
        own = next(environment.glob("lib/*/site-packages"))
        (own / "system.pth").write_text(f"{packages}\n")
    pip(python, f"{wheel}[{extra}]" if extra else str(wheel))
    command = [str(python), "-m", "pip", "list"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split() for line in found.stdout.splitlines()[2:]]
    parts = ("onnxruntime", "opencv", "tensorrt", "nvidia", "numpy", "torch")
    shown = ", ".join(f"{name} {version}" for name, version in rows if name.startswith(parts))
    print(f"[{extra}]: {len(rows)} packages: {shown}", flush=True)
    return python


def new_environment(base: str, name: str) -> Path:
    """Create an empty environment."""
    folder = FOLDER / name
    subprocess.run([base, "-m", "venv", "--clear", folder], check=True)
    return folder


def pip(python: Path, *requirements: str) -> None:
    """Install packages; the process ends if that fails."""
    subprocess.run([python, "-m", "pip", "install", "-qq", *requirements], check=True)


def passes(python: Path, step: Step, clip: Path) -> bool:
    """Run a command, show the last line of its output, and look for the text."""
    words = [word.replace("{clip}", str(clip)) for word in step.command]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"COLUMNS": "200"}
    program = python if words[0] == "-c" else python.with_name("sam2-edge")
    done = subprocess.run(
        [program, *words], env=environment, cwd=FOLDER, capture_output=True, text=True, check=False
    )
    output = done.stdout + done.stderr
    passed = step.expected in output and "Traceback" not in output
    last = output if not passed else next(x for x in output.splitlines() if step.expected in x)
    name = "CUDA provider" if words[0] == "-c" else " ".join(Path(word).name for word in words[:6])
    print(f"  {'pass' if passed else 'FAIL'}  {name}: code {done.returncode}: {last.strip()}")
    return passed


if __name__ == "__main__":
    main()
