"""Everything that needs a GPU, in one run: tests, the loop on every backend, and PyTorch beside it.

    python benchmarks/gpu.py VIDEO [--model sam2.1-hiera-tiny] [--frames 60] [--json FILE]

Runs the backends' common tests, exports the model with random weights, tracks one click through the
same frames on every backend that this machine has and through PyTorch, eager and compiled, and
prints milliseconds per stage and per frame, and ratios to PyTorch eager. Medians over the second
half, where the memory is full. Outputs are compared with the CPU's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_frames import click, frames_of

from sam2_edge import BackendError, Bundle, Prompt, VideoTracker
from sam2_edge.errors import ExportError
from sam2_edge.evaluation.bench.targets import TimedBackend
from sam2_edge.evaluation.pytorch_loop import ReferencePrompt, ReferenceTracker
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import ExportOptions
from sam2_edge.export.tensorrt.bundle import EngineOptions, build_engines
from sam2_edge.models.checkpoints import LoadedModel, load_model
from sam2_edge.runtime.backends import BackendName, open_backend
from sam2_edge.runtime.doctor import findings

Row = dict[str, Any]


def track_with_backend(
    bundle: Bundle, backend: BackendName, frames: list[np.ndarray], *, stages: bool
) -> tuple[Row, list[np.ndarray]]:
    """Median milliseconds per frame, or per stage with a wait after each graph; and logits."""
    opened = open_backend(bundle, backend)
    timed = TimedBackend(opened) if stages else None
    tracker = VideoTracker(bundle, backend=timed or opened)
    spent: dict[str, list[float]] = defaultdict(list)
    times, logits = [], []
    for index, frame in enumerate(frames):
        prompts = [Prompt(1, points=[click(bundle.manifest.image_size)])] if index == 0 else []
        start = time.perf_counter()
        logits.append(tracker.track(frame, prompts)[1].logits)
        times.append(1e3 * (time.perf_counter() - start))
        for graph, elapsed in (timed.take_times() if timed else {}).items():
            spent[graph].append(elapsed)
    row: Row = {"ms": statistics.median(times[len(times) // 2 :])}
    row |= {graph: statistics.median(v[len(v) // 2 :]) for graph, v in spent.items()}
    return row, logits


def track_with_pytorch(
    loaded: LoadedModel, frames: list[np.ndarray], device: str, *, compiled: bool
) -> Row:
    """Median milliseconds per frame through transformers' model in bfloat16."""
    model = loaded.model.to(device)
    if compiled:
        model.vision_encoder = torch.compile(model.vision_encoder)
        model.memory_attention = torch.compile(model.memory_attention, dynamic=True)
        model.mask_decoder = torch.compile(model.mask_decoder)
        model.memory_encoder = torch.compile(model.memory_encoder)
    tracker = ReferenceTracker(model)
    prompt = {
        1: ReferencePrompt(torch.tensor([click(frames[0].shape[0])]).float(), torch.tensor([1]))
    }
    times = []
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16), torch.device(device):
        for index, frame in enumerate(frames):
            image = torch.from_numpy(frame[..., ::-1].copy()).to(device)
            start = time.perf_counter()
            tracker.track(image, prompt if index == 0 else {})
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(1e3 * (time.perf_counter() - start))
    return {"ms": statistics.median(times[len(times) // 2 :])}


def bundles(
    model: str, seed: int, folder: Path
) -> Iterator[tuple[str, BackendName, Callable[[], Bundle]]]:
    """Name, backend and maker of every bundle to try."""

    def onnx(precision: Any) -> Bundle:
        path = folder / f"onnx-{precision}"
        if path.exists():
            from sam2_edge import load_bundle

            return load_bundle(path)
        loaded = load_model(model, random_seed=seed)
        return export_bundle(loaded, path, ExportOptions(precision=precision, target="gpu"))

    def engines(precision: Any, variant: Any) -> Bundle:
        target = folder / f"{variant}-{precision}"
        return build_engines(onnx(precision), target, EngineOptions(variant))

    yield "ONNX Runtime CPU fp32", "cpu", lambda: onnx("fp32")
    for precision in ("fp32", "fp16"):
        yield f"ONNX Runtime CUDA {precision}", "cuda", lambda p=precision: onnx(p)
        for variant in ("tensorrt", "tensorrt-rtx"):
            yield (
                f"{variant} {precision}",
                variant,
                lambda p=precision, f=variant: engines(p, f),
            )


def agreement(logits: list[np.ndarray], reference: list[np.ndarray]) -> float:
    """Mean IoU of masks with the CPU's."""
    shares = []
    for got, wanted in zip(logits, reference, strict=True):
        a, b = got > 0, wanted > 0
        shares.append((a & b).sum() / max((a | b).sum(), 1))
    return float(np.mean(shares))


def save(rows: dict[str, Row], file: Path | None) -> None:
    """Write what there is so far."""
    if file:
        file.write_text(json.dumps(rows, indent=1) + "\n")


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("--model", default="sam2.1-hiera-tiny")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-tests", action="store_true")
    arguments = parser.parse_args()
    for finding in findings():
        print(f"{finding.name}: {finding.value or 'none'}")
    if not arguments.no_tests:
        tests = Path(__file__).parent.parent / "tests" / "runtime" / "test_backends.py"
        subprocess.run([sys.executable, "-m", "pytest", "-q", "-m", "gpu", tests], check=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seed = None if arguments.model == "nano" else arguments.seed
    size = load_model(arguments.model, random_seed=seed).model.config.image_size
    frames = frames_of(arguments.video, arguments.frames, size)
    rows: dict[str, Row] = {}
    reference: list[np.ndarray] | None = None
    with tempfile.TemporaryDirectory(prefix="sam2_edge") as folder:
        for name, backend, make in bundles(arguments.model, seed, Path(folder)):
            try:
                bundle = make()
                row, logits = track_with_backend(bundle, backend, frames, stages=False)
                stages, _ = track_with_backend(bundle, backend, frames, stages=True)
            except (BackendError, ExportError) as error:
                print(f"{name}: not run: {error}")
                continue
            reference = reference or logits
            rows[name] = {**stages, **row, "iou_with_cpu": agreement(logits, reference)}
            print(name, rows[name], flush=True)
            save(rows, arguments.json)
    for compiled in (False, True):
        loaded = load_model(arguments.model, random_seed=seed)
        name = f"PyTorch {device} bfloat16 {'compiled' if compiled else 'eager'}"
        try:
            rows[name] = track_with_pytorch(loaded, frames, device, compiled=compiled)
        except RuntimeError as error:  # what a compiler raises must not cost the other figures
            print(f"{name}: not run: {error}")
            continue
        print(name, rows[name], flush=True)
        save(rows, arguments.json)
    eager = rows.get(f"PyTorch {device} bfloat16 eager", {}).get("ms", float("nan"))
    for name, row in rows.items():
        print(f"{name:36} {row['ms']:8.2f} ms per frame, {eager / row['ms']:6.2f} x PyTorch eager")


if __name__ == "__main__":
    main()
