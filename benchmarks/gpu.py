"""Everything that needs an NVIDIA GPU, in one command: tests, parity, speed and memory.

    python -m benchmarks.gpu [OUTPUT] [--video FILE] [--minutes 8] [--retry]

Runs the GPU tests, compares the whole loop with PyTorch in float32 (SAM 2.1 tiny with random
weights, nano on held-out clips), and times every backend of this machine beside PyTorch, eager and
compiled, on the same frames of 1280x720. Writes OUTPUT/gpu.json and OUTPUT/gpu.md.

What matters most comes first, and what is not reached in time is said to be so: the same command
resumes. Steps are known by the machine, the versions and this tree. Run it in the folder of the
repository, with the extra `export` and those of the engines; the tests need pytest.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.gpu_page import page
from benchmarks.gpu_runner import COMMAND, ROOT, Runner, Settings, Step, Workspace

MINUTES = 8.0

BACKENDS = ("tensorrt", "tensorrt-rtx", "cuda")

PACKAGES = (
    *("torch", "transformers", "onnx", "numpy", "opencv-python", "onnxruntime"),
    *("onnxruntime-gpu", "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx"),
)
"""Those whose versions may change the figures."""

SOURCES = ("sam2_edge", "benchmarks", "tests")
"""What makes up the tree."""

MACHINE = Step("machine", "found", "benchmarks.gpu_steps.machine", 60)


def plan() -> Iterator[Step]:
    """Yield all steps, what matters most first."""
    yield Step(
        "frames", "made", "benchmarks.gpu_steps.frames", 90, backend="gpu", makes="frames.npy"
    )
    yield _export("model", "fp16", 300)
    yield from _engines("model", "fp16")
    yield _reference("reference", "reference", 120, makes="reference.npz", needs=(FRAMES,))
    yield from _all("parity", "fp16", 60, needs=(FRAMES, REFERENCE))
    yield from _all("speed", "fp16", 100, needs=(FRAMES,))
    yield _pytorch("bf16", 120, compiled=False)
    yield Step("tests", "pytest -m gpu", "benchmarks.gpu_steps.tests", 180, backend="gpu")
    yield _export("nano", "fp16", 120)
    yield from _engines("nano", "fp16")
    yield _reference("nano", "nano", 90, makes="nano.npz")
    yield from _all("nano", "fp16", 60, model="nano", needs=(NANO_REFERENCE,))
    yield _pytorch("bf16", 180, compiled=True)
    yield from _all("stages", "fp16", 60, needs=(FRAMES,))
    yield _yardstick("bf16", 90)
    yield _export("model", "fp32", 300)
    yield _measured("parity", "fp32", 60, "cuda", needs=(FRAMES, REFERENCE))
    yield _measured("speed", "fp32", 100, "cuda", needs=(FRAMES,))
    yield _measured("stages", "fp32", 60, "cuda", needs=(FRAMES,))
    yield _pytorch("fp32", 120, compiled=False)
    yield _pytorch("fp32", 180, compiled=True)


FRAMES, REFERENCE, NANO_REFERENCE = "frames: made", "reference: PyTorch fp32", "nano: PyTorch fp32"


def _export(model: str, precision: str, limit_s: float) -> Step:
    arguments = {"model": model, "precision": precision}
    name, task = f"{model}-{precision}", "benchmarks.gpu_pytorch.export"
    return Step("export", name, task, limit_s, arguments, backend="gpu", makes=name)


def _engines(model: str, precision: str) -> Iterator[Step]:
    for variant in ("tensorrt", "tensorrt-rtx"):
        arguments = {"model": model, "precision": precision, "variant": variant}
        name, needs = f"{model}-{precision}-{variant}", (f"export: {model}-{precision}",)
        task = "benchmarks.gpu_steps.engines"
        yield Step("engines", name, task, 300, arguments, needs, backend=variant, makes=name)


def _measured(
    kind: str,
    precision: str,
    limit_s: float,
    backend: str,
    *,
    model: str = "model",
    needs: tuple[str, ...],
) -> Step:
    """Return a step that runs a backend, with the bundle that it runs."""
    made = f"export: {model}-{precision}"
    if backend.startswith("tensorrt"):
        made = f"engines: {model}-{precision}-{backend}"
    arguments, task = {"backend": backend, "precision": precision}, f"benchmarks.gpu_steps.{kind}"
    way, needs = f"{backend} {precision}", (made, *needs)
    return Step(kind, way, task, limit_s, arguments, needs, backend=backend)


def _all(kind: str, precision: str, limit_s: float, **rest: Any) -> Iterator[Step]:
    return (_measured(kind, precision, limit_s, backend, **rest) for backend in BACKENDS)


def _reference(
    kind: str, task: str, limit_s: float, *, makes: str, needs: tuple[str, ...] = ()
) -> Step:
    task = f"benchmarks.gpu_pytorch.{task}"
    return Step(kind, "PyTorch fp32", task, limit_s, {}, needs, backend="pytorch", makes=makes)


def _yardstick(dtype: str, limit_s: float) -> Step:
    way, needs = f"PyTorch {dtype}", (FRAMES, REFERENCE)
    task, arguments = "benchmarks.gpu_pytorch.parity", {"dtype": dtype}
    return Step("parity", way, task, limit_s, arguments, needs, backend="pytorch")


def _pytorch(dtype: str, limit_s: float, *, compiled: bool) -> Step:
    way = f"PyTorch {'compiled' if compiled else 'eager'} {dtype}"
    task, arguments = "benchmarks.gpu_pytorch.speed", {"dtype": dtype, "compiled": compiled}
    return Step("speed", way, task, limit_s, arguments, (FRAMES,), backend="pytorch")


def measure(
    output: Path,
    settings: Settings,
    *,
    minutes: float = MINUTES,
    retry: bool = False,
    command: Sequence[str] = COMMAND,
    steps: Sequence[Step] | None = None,
) -> dict[str, Any]:
    """Run what is left to do, write both files, and return the record of this run.

    Args:
        output: Folder of the files.
        settings: What is measured.
        minutes: Time for all of it.
        retry: Rerun the steps that failed or took too long.
        command: What runs a step.
        steps: What is run; None for `plan`.
    """
    deadline = time.monotonic() + 60 * minutes
    output.mkdir(parents=True, exist_ok=True)
    file = output / "gpu.json"
    first = Runner(Workspace(output / "work", settings), deadline, {}, command)
    machine = first.run_one(MACHINE, deadline - time.monotonic())
    key = _key(machine["figures"].get("found", {}), settings)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    runs = json.loads(file.read_text()) if file.exists() else {}
    run = runs.pop(digest, {}) | key | {"date": date.today().isoformat(), "commit": _commit()}
    runs[digest] = run  # the latest is the last
    kept = run.get("steps", {})
    if retry:
        kept = {name: r for name, r in kept.items() if r["status"] == "done"}
    records = run["steps"] = kept | {MACHINE.name: machine}

    def save(step: Step | None = None) -> None:
        if step is not None:
            record = records[step.name]
            print(f"{record['seconds']:6.1f} s  {step.name}: {record['status']}", flush=True)
        _write(file, json.dumps(runs, indent=1) + "\n")
        _write(output / "gpu.md", page(run))

    runner = Runner(
        Workspace(output / f"work-{digest}", settings), deadline, records, command, save
    )
    runner.run(tuple(plan()) if steps is None else steps, _missing(machine))
    save()
    return run


def _missing(machine: Mapping[str, Any]) -> dict[str, str | None]:
    """Return why each backend is missing; "gpu" stands for the GPU alone."""
    found = machine["figures"].get("missing")
    if found is None:
        reason = f"the machine could not be examined ({machine['reason']})"
        return dict.fromkeys((*BACKENDS, "pytorch", "gpu"), reason)
    return found


def _key(found: Mapping[str, str | None], settings: Settings) -> dict[str, Any]:
    """Return what figures depend on."""
    return {
        "machine": {
            "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            **{name: found.get(name) for name in ("GPU", "CUDA driver", "JetPack")},
        },
        "versions": {"Python": platform.python_version(), **_versions()},
        "tree": tree(ROOT),
        "settings": asdict(settings),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def tree(root: Path) -> str:
    """Return a digest of the sources."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _commit() -> str | None:
    """Return the commit of the sources, if git knows it."""
    command = ("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _write(file: Path, text: str) -> None:
    """Replace a file at once, whatever ends this process."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.write_text(text)
    fresh.replace(file)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", nargs="?", type=Path, default=Path("gpu"))
    parser.add_argument("--video", help="take the frames from this video")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--retry", action="store_true", help="rerun failed steps")
    arguments = parser.parse_args()
    settings = Settings(video=arguments.video)
    # As an exception, so that the step that runs is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    run = measure(
        arguments.output.resolve(), settings, minutes=arguments.minutes, retry=arguments.retry
    )
    states = [record["status"] for record in run["steps"].values()]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print(f"{counted}; see {arguments.output / 'gpu.md'}")
    if not run["machine"]["GPU"]:
        print("nothing was measured: there is no NVIDIA GPU that can be used")
    return 0


if __name__ == "__main__":
    sys.exit(main())
