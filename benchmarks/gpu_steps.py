"""The steps of `benchmarks/gpu.py` that work without PyTorch, as the runtime does.

Each is a generator of parts of its figures, all of which were measured by it.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_runner import ROOT, Workspace
from sam2_edge import Bundle, Prompt, VideoTracker, load_bundle
from sam2_edge.errors import BackendError, ExportError
from sam2_edge.evaluation.bench.targets import BundleTarget
from sam2_edge.evaluation.metrics import object_accuracy, region_similarity
from sam2_edge.evaluation.synthetic import heldout_clips, score_object, summary, track_clip
from sam2_edge.evaluation.tracker import Tracker
from sam2_edge.evaluation.verify.tolerances import LOOP_TOLERANCE
from sam2_edge.export.tensorrt.bundle import build_engines
from sam2_edge.export.tensorrt.options import EngineOptions, check_engine_options
from sam2_edge.runtime.backends import OpenedName
from sam2_edge.runtime.backends.cuda.driver import device_info, driver
from sam2_edge.runtime.backends.tensorrt_variant import TensorRtVariant
from sam2_edge.runtime.doctor import findings
from sam2_edge.runtime.results import FrameResult, full_size
from sam2_edge.runtime.sources import FrameRange
from sam2_edge.runtime.sources.read_ahead import read_ahead
from sam2_edge.runtime.sources.video import open_source
from sam2_edge.synthetic import clip

Figures = Iterator[dict[str, Any]]
Frames = NDArray[np.uint8]

MIN_COUNTED = 10
"""Frames whose time counts at least."""

ADDED, REMOVED, REPROMPTED = 0.3, 0.55, 0.7
"""When a second group of objects is added, one is removed and one prompted again, as shares of the
frames: from then on the objects' memories differ in number."""

REFERENCE, NANO_REFERENCE = "reference.npz", "nano.npz"
"""What PyTorch found in float32."""

MIB = 2**20


class Target(Protocol):
    """What is timed: the runtime, or PyTorch."""

    def reset(self) -> None:
        """Drop every object."""

    def prepare(self, frame: Frames) -> Any:
        """Make the model's input from a frame; another thread may do so."""

    def step(self, prepared: Any, prompts: Sequence[Prompt]) -> None:
        """Track a prepared frame, until masks of its size are on the host."""


def machine(_: Workspace) -> Figures:
    """What is here, and why each backend cannot run, None if it can."""
    yield {"found": {finding.name: finding.value for finding in findings()}}
    missing = dict.fromkeys(("gpu", "cuda", "tensorrt", "tensorrt-rtx", "pytorch"), _no_gpu())
    yield {"missing": missing}
    if missing["gpu"] is None:
        missing |= {variant: _no_tensorrt(variant) for variant in ("tensorrt", "tensorrt-rtx")}
        yield {"missing": missing | {"cuda": _no_cuda_provider(), "pytorch": _no_pytorch()}}


def _no_gpu() -> str | None:
    """Say why there is no GPU."""
    try:
        device_info()
    except BackendError as error:
        return str(error)
    return None


def _no_tensorrt(variant: Any) -> str | None:
    try:
        check_engine_options(EngineOptions(variant))
    except (BackendError, ExportError) as error:
        return str(error)
    return None


def _no_cuda_provider() -> str | None:
    try:
        ort = importlib.import_module("onnxruntime")
        providers = ort.get_available_providers()
    except (ImportError, AttributeError) as error:
        return f"ONNX Runtime cannot be imported ({error})"
    if "CUDAExecutionProvider" not in providers:
        return f"this onnxruntime {ort.__version__} has no CUDAExecutionProvider"
    return None


def _no_pytorch() -> str | None:
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        return f"PyTorch cannot be imported ({error})"
    return None if torch.cuda.is_available() else f"torch {torch.__version__} finds no GPU"


def frames(work: Workspace) -> Figures:
    """Make the frames that everything is measured on."""
    settings = work.settings
    if settings.video is None:
        drawn = clip(7, frames=settings.frames, size=512, split="heldout", photographs=False).frames
        pictures: Sequence[Frames] = list(drawn)
    else:
        pictures = [f.picture for f in open_source(settings.video, FrameRange(0, settings.frames))]
    resized = np.stack([cv2.resize(picture, settings.frame) for picture in pictures])
    np.save(work.folder / "frames.npy", resized)
    yield {"source": settings.video or "synthetic clip", "frames": len(resized)}


def frames_of(work: Workspace) -> Frames:
    """Return the frames, [T, H, W, 3] BGR."""
    return cast("Frames", np.load(work.folder / "frames.npy"))


def clicks(work: Workspace) -> list[Prompt]:
    """Return a click for each object, on a grid."""
    (width, height), most = work.settings.frame, max(4, *work.settings.objects)
    return [
        Prompt(i + 1, points=[((i % 4 + 0.5) * width / 4, (i // 4 + 0.5) * height / -(-most // 4))])
        for i in range(most)
    ]


def tests(work: Workspace) -> Figures:
    """Run the GPU tests."""
    report = work.folder / "tests.xml"
    report.unlink(missing_ok=True)
    options = ("-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}")
    command = [sys.executable, "-m", "pytest", *options, *work.settings.tests]
    done = subprocess.run(command, cwd=ROOT, check=False)
    if not report.exists():
        raise RuntimeError(f"pytest ended with {done.returncode} and without a report; see the log")
    cases = list(ET.parse(report).iter("testcase"))
    bad = [case for case in cases if any(c.tag in ("failure", "error") for c in case)]
    skipped = [case for case in cases if case.find("skipped") is not None]
    reasons = Counter(case.find("skipped").get("message", "") for case in skipped)  # type: ignore[union-attr]
    yield {
        "passed": len(cases) - len(bad) - len(skipped),
        "failed": len(bad),
        "skipped": len(skipped),
        "failures": [f"{case.get('classname')}.{case.get('name')}" for case in bad],
        "skip_reasons": dict(reasons),
    }


def engines(work: Workspace, *, model: str, precision: str, variant: TensorRtVariant) -> Figures:
    """Build a bundle of engines."""
    start = time.perf_counter()
    source = load_bundle(work.folder / f"{model}-{precision}")
    target = work.folder / bundle_name(model, precision, variant)
    built = build_engines(source, target, EngineOptions(variant), overwrite=True)
    files = [built.path / entry.file for entry in built.manifest.graphs.values()]
    size = sum(file.stat().st_size for file in files)
    yield {"build_s": time.perf_counter() - start, "engines_mib": size / MIB}


def bundle_name(model: str, precision: str, backend: str) -> str:
    """Return the folder of the bundle that a backend runs."""
    name = f"{model}-{precision}"
    return f"{name}-{backend}" if backend.startswith("tensorrt") else name


def bundle_of(work: Workspace, model: str, precision: str, backend: str) -> Bundle:
    """Load the bundle that a backend runs."""
    return load_bundle(work.folder / bundle_name(model, precision, backend))


def script(tracker: Any, pictures: Frames, prompts: Sequence[Prompt]) -> Iterator[FrameResult]:
    """Track two groups of objects, remove one, and prompt one again."""
    added, removed, reprompted = (int(s * len(pictures)) for s in (ADDED, REMOVED, REPROMPTED))
    first, second, third, fourth = prompts[:4]
    on_frame = {0: [first, second], added: [third, fourth], reprompted: [first]}
    for index, picture in enumerate(pictures):
        if index == removed:
            tracker.remove(2)
        yield tracker.track(picture, on_frame.get(index, ()))


def parity(work: Workspace, *, backend: OpenedName, precision: str) -> Figures:
    """Compare the whole loop with PyTorch's in float32."""
    bundle = bundle_of(work, "model", precision, backend)
    with VideoTracker(bundle, backend=backend) as tracker:
        yield agreement(work, script(tracker, frames_of(work), clicks(work)), precision)


def agreement(work: Workspace, results: Iterator[FrameResult], precision: str) -> dict[str, Any]:
    """Compare masks, logits and presence with the reference's, object by object."""
    masks: dict[int, list[tuple[NDArray[Any], NDArray[Any]]]] = {}
    errors, largest, present = [], 0.0, []
    with np.load(work.folder / REFERENCE) as reference:
        for result in results:
            for entry in result.objects:
                wanted = reference[f"{result.index}/{entry.object_id}"]
                difference = np.abs(entry.logits - wanted)
                largest = float(np.maximum(largest, difference.max()))  # keeps NaN
                errors.append(float(np.linalg.norm(difference) / np.linalg.norm(wanted)))
                present.append(
                    entry.present == bool(reference["present"][result.index, entry.object_id])
                )
                pair = (entry.mask, full_size(wanted, entry.mask.shape) > 0)
                masks.setdefault(entry.object_id, []).append(pair)
    similar = [
        region_similarity(ours, theirs) for pairs in masks.values() for ours, theirs in pairs
    ]
    by_object = [object_accuracy(*zip(*pairs, strict=True)).j_and_f for pairs in masks.values()]
    limit = LOOP_TOLERANCE["fp32" if precision == "fp32" else "fp16"]["j_and_f"]
    return {
        "j_and_f": float(np.mean(by_object)),
        "limit": limit,
        "agrees": bool(np.isfinite(largest)) and float(np.mean(by_object)) >= limit,
        "lowest_iou": min(similar),
        "presence": float(np.mean(present)),
        "logit_error": float(np.median(errors)),
        "largest_difference": largest,
        "masks": len(similar),
    }


def nano(work: Workspace, *, backend: OpenedName, precision: str) -> Figures:
    """Measure accuracy on held-out clips, and agreement with PyTorch's masks."""
    bundle = bundle_of(work, "nano", precision, backend)
    with VideoTracker(bundle, backend=backend) as tracker:
        figures, masks = accuracy(work, tracker)
    yield figures
    with np.load(work.folder / NANO_REFERENCE) as reference:
        similar = [region_similarity(a, b) for a, b in zip(masks, reference["masks"], strict=True)]
    yield {"iou_with_pytorch": float(np.mean(similar)), "lowest_iou": min(similar)}


def accuracy(work: Workspace, tracker: Tracker) -> tuple[dict[str, Any], list[NDArray[np.bool_]]]:
    """Track held-out clips from one click per object; returns the summary and all masks."""
    scores, masks = [], []
    for drawn in islice(heldout_clips(work.settings.clips), work.settings.clips):
        results = track_clip(tracker, drawn, "click")
        masks += [entry.mask for result in results for entry in result.objects]
        objects = range(1, drawn.present.shape[1] + 1)
        scores += [score_object(drawn, object_id, results) for object_id in objects]
    return summary(scores), masks


class RuntimeTarget:
    """A bundle, as users run it."""

    def __init__(self, bundle: Bundle, backend: OpenedName) -> None:
        self._tracker = VideoTracker(bundle, backend=backend)
        self.reset, self.prepare = self._tracker.reset, self._tracker.prepare

    def step(self, prepared: Any, prompts: Sequence[Prompt]) -> None:
        """Track a frame and make its masks."""
        for entry in self._tracker.track(prepared, prompts).objects:
            _ = entry.mask


def speed(work: Workspace, *, backend: OpenedName, precision: str) -> Figures:
    """Time whole frames for every number of objects."""
    before = used_memory()
    target = RuntimeTarget(bundle_of(work, "model", precision, backend), backend)
    yield from timed(work, target, before)


def timed(work: Workspace, target: Target, memory_before: int) -> Figures:
    """Time a target for every number of objects, memories full.

    Frames pass one after the other for `ms`; for `fps` a thread prepares the next ones. Memory is
    what the GPU has given to all processes more than before the target was made.
    """
    settings, pictures = work.settings, frames_of(work)
    most = max(settings.warm + 2 * settings.counted, 1)
    for objects in settings.objects:
        target.reset()
        prompts, times, peak = clicks(work)[:objects], [], 0
        source = (pictures[i % len(pictures)] for i in range(most))
        end = time.perf_counter() + 3600
        for index in range(settings.warm + settings.counted):
            if index == settings.warm:
                end = time.perf_counter() + settings.box_s
            start = time.perf_counter()
            target.step(target.prepare(next(source)), () if index else prompts)
            times.append(1e3 * (time.perf_counter() - start))
            peak = max(peak, used_memory() - memory_before)
            if time.perf_counter() > end and index >= settings.warm + MIN_COUNTED - 1:
                break
        counted = times[settings.warm :]
        median, p95 = np.percentile(counted, (50, 95))
        found = {"ms": float(median), "p95": float(p95), "frames": len(counted)}
        found["peak_mib"] = peak / MIB
        found["fps"] = _frames_per_second(target, source, settings.box_s)
        yield {str(objects): found}


def _frames_per_second(
    target: Target, source: Generator[Frames, None, None], box_s: float
) -> float:
    """Track the frames that are left, which a thread prepares."""
    start, count = time.perf_counter(), 0
    with closing(read_ahead(source, target.prepare)) as ahead:
        for prepared in ahead:
            target.step(prepared, ())
            count += 1
            if time.perf_counter() - start > box_s and count >= MIN_COUNTED:
                break
    return count / (time.perf_counter() - start)


def stages(work: Workspace, *, backend: OpenedName, precision: str) -> Figures:
    """Time the stages of a frame, for the smallest and largest numbers of objects.

    A frame with clocks between its graphs is not one CUDA graph: the sum may exceed `speed`'s.
    """
    settings, pictures = work.settings, frames_of(work)
    target = BundleTarget(bundle_of(work, "model", precision, backend), backend=backend)
    for objects in dict.fromkeys((settings.objects[0], settings.objects[-1])):
        target.reset()
        times = []
        for index in range(settings.warm + settings.counted):
            prompts = () if index else clicks(work)[:objects]
            times.append(target.step(pictures[index % len(pictures)], prompts))
        counted = times[settings.warm :]
        yield {
            str(objects): {
                s: float(np.median([t[s] for t in counted if s in t])) for s in counted[-1]
            }
        }


def used_memory() -> int:
    """Return the bytes of the GPU's memory that all processes together use."""
    free, total = driver().memory_info()
    return total - free
