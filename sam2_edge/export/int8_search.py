"""Which layers of the image encoder to quantize so that masks stay as good as in float32."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import Feeds, Graph, GraphTarget
from sam2_edge.bundle.storage import file_entry, save_manifest
from sam2_edge.bundle.temporary import scratch_folder
from sam2_edge.calibration.frames import CalibrationFrames
from sam2_edge.calibration.qdq import quantizable_layers, quantize_model
from sam2_edge.calibration.ranges import Method, collect_ranges
from sam2_edge.calibration.tensor_stats import Range
from sam2_edge.errors import ExportError
from sam2_edge.evaluation.synthetic import heldout_clips, scores
from sam2_edge.runtime.tracker import VideoTracker

SENSITIVITY_FRAMES = 4
"""Calibration frames on which each layer is tried alone."""

CLIPS = 20
"""Synthetic clips of two objects and 32 frames on which masks are scored."""


@dataclass(frozen=True, slots=True)
class Int8Plan:
    """What to quantize, and why.

    Attributes:
        ranges: Values that INT8 covers, by tensor.
        layers: Names of the layers to quantize.
        left_out: Layers that stay in float to meet the budget, most sensitive first.
        errors: See `layer_errors`; empty without a budget.
    """

    ranges: dict[str, Range]
    layers: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    errors: dict[str, float] = field(default_factory=dict)


def plan_int8(
    bundle: Bundle,
    frames: CalibrationFrames,
    *,
    method: Method,
    target: GraphTarget,
    budget: float | None,
    clips: int = CLIPS,
    on_progress: Callable[[str], None] = lambda _step: None,
) -> Int8Plan:
    """Find the ranges and layers for quantizing the image encoder.

    With a budget, 0, 1, 2, 4, 8 ... of the most sensitive layers stay in float, until J&F on
    synthetic clips falls by at most `budget`.

    Args:
        bundle: Graphs in float32.
        frames: Calibration frames.
        method: Which of the values seen a range covers.
        target: What the graph is written for.
        budget: Largest loss of J&F; None quantizes every layer that can be.
        clips: Number of synthetic clips.
        on_progress: Called with the current step.

    Raises:
        ExportError: The budget is exceeded whichever layers stay in float.
    """
    model = onnx.load(bundle.graph_path(Graph.IMAGE_ENCODER))
    layers = quantizable_layers(model)
    on_progress("collecting ranges")
    ranges = collect_ranges(model, frames, method)
    if budget is None:
        return Int8Plan(ranges, tuple(layers))
    on_progress(f"trying {len(layers)} layers alone")
    few_frames = islice(frames, SENSITIVITY_FRAMES)
    errors = layer_errors(model, ranges, layers, few_frames, target)
    on_progress("scoring float32")
    reference = _score(bundle, clips)
    best = 0.0
    powers = (2**exponent for exponent in itertools.count())
    for count in (0, *takewhile(lambda power: power < len(layers), powers)):
        left_out = tuple(islice(errors, count))
        kept = tuple(layer for layer in layers if layer not in left_out)
        with scratch_folder() as folder:
            changed = {Graph.IMAGE_ENCODER: quantize_model(model, ranges, kept, target)}
            score = _score(trial_bundle(bundle, folder, changed), clips)
        on_progress(f"J&F {score:.4f} ({reference:.4f}) with {count} layers in float")
        if reference - score <= budget:
            return Int8Plan(ranges, kept, left_out, errors)
        best = max(best, score)
    raise ExportError(
        f"J&F in INT8 is {best:.4f} at best, in float32 {reference:.4f}: more than the budget of "
        f"{budget} is lost whichever layers stay in float; allow more, give other calibration "
        "frames or choose fp16"
    )


def layer_errors(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    layers: Collection[str],
    inputs: Iterable[Feeds],
    target: GraphTarget,
) -> dict[str, float]:
    """Mean `relative_error` over `inputs` with one layer alone in INT8, the worst layer first."""
    feeds = list(inputs)
    expected = _outputs(model, feeds)
    errors = {}
    for layer in layers:
        outputs = _outputs(quantize_model(model, ranges, [layer], target), feeds)
        errors[layer] = float(
            np.mean([relative_error(a, b) for a, b in zip(outputs, expected, strict=True)])
        )
    return dict(sorted(errors.items(), key=lambda item: -item[1]))


def relative_error(outputs: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> float:
    """RMS of the difference over RMS of the expected values, of the worst output."""
    pairs = zip(outputs, expected, strict=True)
    return max(float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2))) for a, b in pairs)


def trial_bundle(source: Bundle, folder: Path, changed: Mapping[Graph, onnx.ModelProto]) -> Bundle:
    """Copy a bundle to an empty folder with other graphs in place of some of its own."""
    for file in source.path.iterdir():
        shutil.copy2(file, folder)
    graphs = dict(source.manifest.graphs)
    for graph, model in changed.items():
        name = f"{graph.value}.onnx"
        onnx.save(model, folder / name)
        update = {**file_entry(folder, name).model_dump(), "data": ()}
        graphs[graph] = graphs[graph].model_copy(update=update)
    save_manifest(folder, source.manifest.model_copy(update={"graphs": graphs}))
    return load_bundle(folder)


def _outputs(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> list[list[NDArray[np.float32]]]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(None, dict(each)) for each in feeds]


def _score(bundle: Bundle, clips: int) -> float:
    """Mean J&F with one click per object."""
    found = scores(heldout_clips(clips), "click", VideoTracker(bundle, backend="cpu"))
    return float(np.mean([score.accuracy.j_and_f for score in found]))
