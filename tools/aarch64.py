"""Runs the CPU installation on an emulated aarch64 machine and compares results with x86-64.

    python -m tools.aarch64
    python -m tools.aarch64 --python PATH onnxruntime==1.23.2 av==14.0.0

Both machines install the wheel of this checkout with pip, which resolves the dependencies for
each: on aarch64, pip itself runs under QEMU. Then both run `doctor`, `track` and `segment` on the
same clip. Requires Debian's packages qemu-user-static and mmdebstrap; several minutes and 1.3 GB in
.aarch64/, where a second run finds the system and the dependencies again. Says nothing about speed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sam2_edge.runtime.results import decode_rle

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".aarch64"
DEBIAN = "bookworm"
# The libraries are those that opencv-python expects of a system.
PACKAGES = ["python3", "python3-pip", "libgl1", "libglib2.0-0"]
# The last for Python 3.10, as on JetPack 6. From 1.28 on it crashes at import under QEMU 7.2.
REQUIREMENTS = ["onnxruntime==1.23.2"]
EMULATOR = ["qemu-aarch64-static", "-cpu", "cortex-a72", "-L"]
CLIP = ["--frames", "4", "--seed", "55", "--no-photographs"]
# What names a result and what is compared beside its mask, in `track --jsonl` and `segment --json`.
KEYS, SCORES = ("frame", "object", "rank", "present"), ("iou", "object_score")
# Shares of a mask's pixels, and of scores, that may differ, for each file of results. Frames of a
# video differ before the model: FFmpeg rounds colors otherwise on aarch64, by up to 3 of 255.
TOLERANCES = {"frames": (1e-4, 0.001), "segment": (1e-4, 0.001), "video": (4e-3, 0.1)}


@dataclass(frozen=True, slots=True)
class Machine:
    """A Python (the command that starts it) with the product and ONNX Runtime for the CPU."""

    name: str
    python: list[str]
    site: Path

    def install(self, wheel: Path, requirements: Sequence[str]) -> None:
        """Install the wheel; its dependencies only if an earlier run has not."""
        options = ["--quiet", "--no-compile", "--upgrade", "--target"]
        if not self.site.exists():
            print(f"{self.name}: install dependencies", flush=True)
            new = self.site.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            everything = ["--only-binary", ":all:", f"{wheel}[cpu]", *requirements]
            self._run("-m", "pip", "install", *options, str(new), *everything)
            new.rename(self.site)
        self._run("-m", "pip", "install", *options, str(self.site), "--no-deps", str(wheel))

    def command(self, *arguments: str) -> None:
        """Run `sam2-edge`."""
        print(f"{self.name}: sam2-edge {' '.join(arguments)}", flush=True)
        self._run(str(self.site / "bin/sam2-edge"), *arguments)

    def _run(self, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(self.site)}
        done = subprocess.run([*self.python, *arguments], env=environment, cwd=FOLDER, check=False)
        if done.returncode:
            sys.exit(f"{self.name}: exit code {done.returncode} from {' '.join(arguments)}")


class Difference(NamedTuple):
    """How far two results of one object on one frame are apart."""

    result: str
    pixels: int
    share: float
    score: float


def main() -> None:
    """Set both machines up, run the commands on both, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("requirements", nargs="*", default=REQUIREMENTS, help="for both machines")
    parser.add_argument("--python", type=Path, help="aarch64 Python with pip; default: Debian's")
    arguments = parser.parse_args()
    if not shutil.which(EMULATOR[0]) or not shutil.which("mmdebstrap"):
        sys.exit("needs QEMU and mmdebstrap: apt install qemu-user-static mmdebstrap")
    FOLDER.mkdir(exist_ok=True)
    system = debian()
    python = (arguments.python or system / "usr/bin/python3").absolute()
    key = hashlib.sha256((ROOT / "pyproject.toml").read_bytes())
    key.update(" ".join([str(python), *arguments.requirements]).encode())
    site = key.hexdigest()[:12]
    venv.create(FOLDER / "environment", with_pip=True)
    host = Machine("x86-64", [f"{FOLDER}/environment/bin/python"], FOLDER / f"x86-64-{site}")
    emulated = [*EMULATOR, str(system), str(python)]
    device = Machine("aarch64", emulated, FOLDER / f"aarch64-{site}")
    wheel = build_wheel(FOLDER)
    for machine in (host, device):
        machine.install(wheel, arguments.requirements)
    host.command("synth", "clip", *CLIP, "--overwrite")
    for machine in (host, device):
        run_commands(machine)
    sys.exit(report(FOLDER / host.name, FOLDER / device.name))


def debian() -> Path:
    """Return the folder of a Debian for arm64: extracted, so that nothing in it has to run."""
    system, new = FOLDER / DEBIAN, FOLDER / f"{DEBIAN}.new"
    if not system.exists():
        archive = f"{new}.tar"
        command = ["mmdebstrap", "--quiet", "--variant=extract", "--architectures=arm64"]
        command += [f"--include={','.join(PACKAGES)}", DEBIAN, archive]
        subprocess.run(command, check=True)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        # Without devices, which only root can create.
        unpack = ["tar", "--extract", "--file", archive, "--exclude=./dev", "--directory", str(new)]
        subprocess.run(unpack, check=True)
        new.rename(system)
    return system


def build_wheel(place: Path) -> Path:
    """Return the wheel of this checkout, built from a copy: no older build leaks into it."""
    source, wheels = place / "source", place / "wheels"
    for folder in (source, wheels):
        shutil.rmtree(folder, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "sam2_edge", source / "sam2_edge", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*build, str(wheels), str(source)], check=True)
    return next(wheels.glob("*.whl"))


def run_commands(machine: Machine) -> None:
    """Run `doctor`, then `track` and `segment` with results in a folder of the machine's name."""
    name = machine.name
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    (FOLDER / name).mkdir()
    frames, bundle = "clip/JPEGImages/00000", ["--bundle", "nano"]
    outputs = ["--jsonl", f"{name}/frames.json", "--video", f"{name}/overlay.mp4"]
    machine.command("doctor")
    machine.command("track", frames, *bundle, "--prompts", "clip/prompts/00000.json", *outputs)
    # Both decode the video that x86-64 has encoded.
    box = ["--box", "60,60,190,190", "--jsonl", f"{name}/video.json"]
    machine.command("track", "x86-64/overlay.mp4", *bundle, *box)
    point = ["--point", "120,120", "--multimask", "--json", f"{name}/segment.json"]
    machine.command("segment", f"{frames}/00000.jpg", *bundle, *point)


def report(expected: Path, actual: Path) -> int:
    """Print how far the results of two folders are apart and return an exit code."""
    print(f"{'result':<36} {'pixels':>6} {'share':>7} {'score':>8}")
    failed = False
    for file, (most, furthest) in TOLERANCES.items():
        for found in compare(expected / f"{file}.json", actual / f"{file}.json"):
            passed = found.share <= most and found.score <= furthest
            figures = f"{found.pixels:>6} {found.share:>7.3%} {found.score:>8.6f}"
            print(f"{file + ' ' + found.result:<36} {figures} {'pass' if passed else 'FAIL'}")
            failed |= not passed
    print("tolerances, share and score:", TOLERANCES)
    return 1 if failed else 0


def compare(expected: Path, actual: Path) -> Iterator[Difference]:
    """Compare two files of `track --jsonl` or `segment --json`; exit if they list other results."""
    files = read(expected), read(actual)
    names, others = ([[record.get(key) for key in KEYS] for record in file] for file in files)
    if names != others:
        sys.exit(f"{actual} has results of other frames or objects than {expected}")
    for ours, theirs in zip(*files, strict=True):
        result = " ".join(f"{key} {ours[key]}" for key in KEYS if key in ours)
        mask = decode_rle(ours["rle"])
        pixels = int(np.count_nonzero(mask != decode_rle(theirs["rle"])))
        score = max(abs(ours[key] - theirs[key]) for key in SCORES if key in ours)
        yield Difference(result, pixels, pixels / mask.size, score)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file: a list, or a record a line."""
    text = path.read_text()
    return json.loads(text) if text.startswith("[") else list(map(json.loads, text.splitlines()))


if __name__ == "__main__":
    main()
