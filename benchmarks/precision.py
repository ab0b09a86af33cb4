"""What float16 and INT8 do: to each graph on recorded inputs, and to masks over whole clips.

    PYTHONPATH=. python benchmarks/precision.py nano --clips 20 [--target cpu] [--json FILE]
    PYTHONPATH=. python benchmarks/precision.py sam2.1-hiera-tiny --random-init 1 [--json FILE]

The model tracks a synthetic clip in float32, and the inputs of each graph on four frames are
recorded. The error of a graph in another precision is the RMS of the difference over the RMS of the
values, of the worst output; outputs that depend on the decoder's choice of a mask are left out.
With --clips, J&F on held-out clips from one click per object, which is meaningless for random
weights. Graphs are as exported for a GPU, with float16 between them, or for a CPU. float16 is
emulated, as CPUs do not compute in it; INT8 is calibrated with min-max ranges on 64 frames.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx

from sam2_edge import Bundle, VideoTracker
from sam2_edge.bundle.agreement import CHOSEN
from sam2_edge.bundle.contract import Graph, GraphTarget, graph_specs
from sam2_edge.calibration.frames import CalibrationFrames, collect_frames
from sam2_edge.calibration.qdq import quantizable_layers, quantize_model
from sam2_edge.calibration.ranges import collect_ranges
from sam2_edge.calibration.recording import Recording, record_inputs
from sam2_edge.evaluation.synthetic import heldout_clips, scores, summary
from sam2_edge.export.fp16 import fp32_only_nodes, overflowing_nodes, to_half
from sam2_edge.export.int8_search import relative_error, trial_bundle
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import (
    PRECISION_MODES,
    ExportOptions,
    PrecisionMode,
    float16_tensors,
)
from sam2_edge.models.checkpoints import load_model
from sam2_edge.synthetic import clip
from tools.fp16_emulation import emulate_fp16

Models = dict[tuple[Graph, str], onnx.ModelProto]


def calibration_frames(folder: Path, size: int) -> CalibrationFrames:
    """64 frames of a synthetic clip that is not among the held-out ones."""
    pictures, kept = folder / "pictures", folder / "kept"
    pictures.mkdir()
    kept.mkdir()
    for index, frame in enumerate(clip(7, frames=64, size=min(size, 512)).frames):
        cv2.imwrite(str(pictures / f"{index:03d}.png"), frame)
    return collect_frames(pictures, kept, size=size, count=64)


def changed_graphs(
    bundle: Bundle, recording: Recording, frames: CalibrationFrames, target: GraphTarget
) -> Iterator[tuple[Graph, str, onnx.ModelProto, int]]:
    """Every graph in float16, the image encoder in INT8, and the number of nodes in float32.

    For a GPU also every graph in float32 with float16 inputs and outputs.
    """
    dtype = "float16" if target == "gpu" else "float32"
    specs = graph_specs(replace(bundle.manifest.geometry, feature_dtype=dtype))
    for graph in filter(recording.has, Graph):
        model = onnx.load(bundle.graph_path(graph))
        features = float16_tensors(specs[graph])
        keep = fp32_only_nodes(model) | overflowing_nodes(model, recording.inputs(graph))
        yield graph, "fp16", emulate_fp16(to_half(model, keep, features)), len(keep)
        if features:
            names = {node.name for node in model.graph.node}
            yield graph, "fp32", emulate_fp16(to_half(model, names, features)), len(names)
    model = onnx.load(bundle.graph_path(Graph.IMAGE_ENCODER))
    ranges = collect_ranges(model, frames, "minmax")
    quantized = quantize_model(model, ranges, quantizable_layers(model), target)
    keep = set()
    if target == "gpu":
        inputs = recording.inputs(Graph.IMAGE_ENCODER)
        keep = fp32_only_nodes(quantized) | overflowing_nodes(model, inputs)
        features = float16_tensors(specs[Graph.IMAGE_ENCODER])
        quantized = emulate_fp16(to_half(quantized, keep, features))
    yield Graph.IMAGE_ENCODER, "int8", quantized, len(keep)


def error(bundle: Bundle, graph: Graph, model: onnx.ModelProto, recording: Recording) -> float:
    """Relative error of a changed graph on recorded inputs, of its worst output, on average."""
    import onnxruntime as ort  # after sam2_edge, which switches its telemetry off

    plain = ort.InferenceSession(bundle.graph_path(graph))
    changed = ort.InferenceSession(model.SerializeToString())
    names = [o.name for o in graph_specs(bundle.manifest.geometry)[graph].outputs]
    names = [name for name in names if name not in CHOSEN]
    found = [
        relative_error(changed.run(names, dict(feeds)), plain.run(names, dict(feeds)))
        for feeds in recording.inputs(graph)
    ]
    return float(np.mean(found))


def j_and_f(bundle: Bundle, clips: int) -> float:
    """Mean J&F with one click per object."""
    found = scores(heldout_clips(clips), "click", VideoTracker(bundle, backend="cpu"))
    return summary(list(found))["j_and_f"]


def policy_scores(
    bundle: Bundle, models: Models, clips: int, target: GraphTarget
) -> Iterator[tuple[PrecisionMode, float]]:
    """J&F by policy."""
    for policy, precisions in PRECISION_MODES[target].items():
        changed = {}
        if policy != "fp32":
            changed = {g: models[g, p] for g, p in precisions.items() if (g, p) in models}
        with tempfile.TemporaryDirectory(prefix="sam2_edge") as folder:
            yield policy, j_and_f(trial_bundle(bundle, Path(folder), changed), clips)


def main() -> None:
    """Print a row per graph and precision, and with --clips one per policy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--random-init", type=int)
    parser.add_argument("--target", choices=["cpu", "gpu"], default="gpu")
    parser.add_argument("--clips", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    models: Models = {}
    with tempfile.TemporaryDirectory(prefix="sam2_edge") as name:
        folder = Path(name)
        loaded = load_model(arguments.model, random_seed=arguments.random_init)
        target: GraphTarget = arguments.target
        options = ExportOptions(memory_rounding="none", target=target)
        bundle = export_bundle(loaded, folder / "bundle", options)
        frames = calibration_frames(folder, bundle.manifest.image_size)
        recording = record_inputs(bundle, frames, folder / "kept")
        for graph, precision, model, kept in changed_graphs(bundle, recording, frames, target):
            models[graph, precision] = model
            found = error(bundle, graph, model, recording)
            rows.append({"graph": graph.value, "precision": precision, "error": found})
            print(f"{graph.value:18} {precision}  error {found:.2e}  {kept} nodes kept", flush=True)
        if arguments.clips:
            for policy, value in policy_scores(bundle, models, arguments.clips, target):
                rows.append({"policy": policy, "j_and_f": round(value, 4)})
                print(f"{policy:6} J&F {value:.4f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
