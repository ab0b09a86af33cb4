"""From a loaded model to a bundle on disk: every graph exported, checked and recorded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import (
    Feeds,
    Geometry,
    Graph,
    MemoryRounding,
    Precision,
    graph_specs,
)
from sam2_edge.bundle.manifest import (
    FORMAT_VERSION,
    CalibrationEntry,
    GraphEntry,
    Manifest,
    MemoryEntry,
    ModelEntry,
    NormalizationEntry,
    tensor_entries,
)
from sam2_edge.bundle.storage import check_new_bundle, file_entry, new_bundle_folder, save_manifest
from sam2_edge.calibration.frames import CalibrationFrames, collect_frames
from sam2_edge.calibration.qdq import QdqTarget
from sam2_edge.calibration.ranges import Method
from sam2_edge.calibration.recording import Recording, record_inputs
from sam2_edge.errors import ExportError
from sam2_edge.export.int8_search import search_int8
from sam2_edge.export.onnx_graph import export_onnx, opset_of
from sam2_edge.export.precision import PRECISION_MODES, Calibration, PrecisionMode, halve, quantize
from sam2_edge.export.validate import check_numbers, check_structure, example_feeds
from sam2_edge.models.checkpoints import LoadedModel
from sam2_edge.models.graphs import graph_modules
from sam2_edge.models.graphs.image_encoder import IMAGE_MEAN, IMAGE_STD
from sam2_edge.models.variants import geometry_of

ProgressCallback = Callable[[Graph, str], None]
"""Called with a graph and what happens to it now: "export", "inputs" (recording them, only with
calibration), "precision" (only where it is changed), "structure", "numbers" or "done"."""


def export_bundle(
    loaded: LoadedModel,
    target: Path,
    *,
    precision: PrecisionMode = "fp32",
    engine: QdqTarget = "cpu",
    calibration: Calibration | None = None,
    memory_rounding: MemoryRounding = "bfloat16",
    memory_tokens: int | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> Bundle:
    """Export a model as a bundle of ONNX graphs and return it, loaded.

    precision: see `PRECISION_MODES`. engine: whose INT8 graphs to write. calibration:
    needed for "int8"; shows "mixed" and "fp16" which values are too large for float16, where
    otherwise seeded inputs do.
    memory_rounding: "bfloat16" stores memory as the published predictor does, "none" in full.
    memory_tokens: tokens of each memory that memory attention sees, chosen by the object's mask
    (`runtime/memory/token_selection.py`), None for all; fewer are faster and not exact.

    Raises ExportError, SourceError or BundleError; nothing is left at `target` then.
    """
    check_calibration(precision, calibration)
    check_new_bundle(target, overwrite=overwrite)
    report = progress or _no_progress
    geometry = replace(geometry_of(loaded.model.config), memory_tokens=memory_tokens)
    check_memory_tokens(geometry)
    modules = graph_modules(loaded.model, memory_rounding=memory_rounding)
    with new_bundle_folder(target, overwrite=overwrite) as folder, TemporaryDirectory() as kept:
        seen = None
        if calibration is not None:
            full = export_bundle(
                loaded,
                Path(kept) / "full",
                memory_rounding=memory_rounding,
                memory_tokens=memory_tokens,
                progress=lambda graph, step: None if step == "done" else report(graph, step),
            )
            seen = _observe(full, calibration, engine, Path(kept), report)
        exporter = _Exporter(
            folder=folder,
            geometry=geometry,
            rounded=memory_rounding == "bfloat16",
            engine=engine,
            seen=seen,
            report=report,
        )
        precisions = PRECISION_MODES[engine][precision]
        graphs = {
            graph: exporter.export(graph, module, precisions[graph])
            for graph, module in modules.items()
        }
        save_manifest(folder, _manifest(loaded, geometry, memory_rounding, graphs))
    return load_bundle(target)


def check_calibration(precision: PrecisionMode, calibration: Calibration | None) -> None:
    """Raise ExportError unless calibration is given where it is needed, and fits the precision."""
    if calibration is None:
        if precision == "int8":
            raise ExportError(
                "int8 needs frames to calibrate with; give --calibrate with a video, a folder of "
                "images or a camera that shows what will be seen in use"
            )
        return
    if precision == "fp32":
        raise ExportError(
            "fp32 is not calibrated; leave out --calibrate, or choose mixed, fp16 or int8"
        )
    budget = calibration.budget
    if budget is None:
        return
    if precision != "int8":
        raise ExportError(f"a budget is for int8, not for {precision}; leave it out")
    if not 0 <= budget < 1:
        raise ExportError(f"a budget of {budget} of J&F; give 0 to 1, such as 0.005")


def check_memory_tokens(geometry: Geometry) -> None:
    """Raise ExportError unless memory attention can see so few tokens of each memory."""
    tokens, side = geometry.memory_tokens, geometry.embedding_size
    if tokens is None:
        return
    if not 1 <= tokens < side**2:
        raise ExportError(
            f"{tokens} memory tokens; a memory at {geometry.image_size} pixels has {side} x {side} "
            f"tokens: give 1 to {side**2 - 1}, or leave it out to attend to all"
        )


def _observe(
    full: Bundle,
    calibration: Calibration,
    engine: QdqTarget,
    kept: Path,
    report: ProgressCallback,
) -> _Seen:
    """What a float32 bundle does on calibration frames, which are written to `kept`."""
    size = full.manifest.image_size
    frames = collect_frames(calibration.source, kept, size=size, count=calibration.frames)
    for graph in Graph:
        report(graph, "inputs")
    recording = record_inputs(full, frames, kept)
    if calibration.budget is None:
        return _Seen(full, frames, recording, calibration.method, {}, ())
    found = search_int8(
        full,
        frames,
        method=calibration.method,
        engine=engine,
        budget=calibration.budget,
        watch=lambda now: report(Graph.IMAGE_ENCODER, now),
    )
    return _Seen(full, frames, recording, calibration.method, found.errors, found.left_out)


def _no_progress(_graph: Graph, _step: str) -> None:
    """For callers that do not watch."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What calibration gave. full: the float32 bundle. errors, left_out: as in `Search`."""

    full: Bundle
    frames: CalibrationFrames
    recording: Recording
    method: Method
    errors: dict[str, float]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Exporter:
    """What every graph of one export has in common. seen: None without calibration."""

    folder: Path
    geometry: Geometry
    rounded: bool
    engine: QdqTarget
    seen: _Seen | None
    report: ProgressCallback

    def export(self, graph: Graph, module: nn.Module, precision: Precision) -> GraphEntry:
        """Write one graph, check it, and say what it is."""
        spec = graph_specs(self.geometry)[graph]
        path = self.folder / f"{graph.value}.onnx"
        if self.seen:
            _copy_graph(self.seen.full, graph, self.folder)
        else:
            self.report(graph, "export")
            export_onnx(module, spec, path)
        calibrated = self._change(graph, path, precision)
        self.report(graph, "structure")
        check_structure(path, spec)
        self.report(graph, "numbers")
        parity = check_numbers(
            path, module, spec, self._inputs(graph), rounded=self.rounded, precision=precision
        )
        data = [
            file_entry(self.folder, p.name) for p in sorted(self.folder.glob(f"{path.name}.data"))
        ]
        self.report(graph, "done")
        return GraphEntry(
            **file_entry(self.folder, path.name).model_dump(),
            backend="onnxruntime",
            precision=precision,
            opset=opset_of(path),
            inputs=tensor_entries(spec.inputs),
            outputs=tensor_entries(spec.outputs),
            data=tuple(data),
            parity=parity,
            calibration=calibrated,
        )

    def _change(self, graph: Graph, path: Path, precision: Precision) -> CalibrationEntry | None:
        """Bring a float32 graph to its precision."""
        if precision == "fp32":
            return None
        self.report(graph, "precision")
        seen = self.seen
        if precision == "fp16":
            halve(path, self._inputs(graph))
            if seen is None:
                return None
            return CalibrationEntry(source=seen.frames.source, frames=seen.frames.numbers)
        assert seen is not None  # check_calibration has seen to it
        return quantize(
            path,
            seen.frames,
            seen.method,
            self.engine,
            inputs=self._inputs(graph),
            errors=seen.errors,
            left_out=seen.left_out,
        )

    def _inputs(self, graph: Graph) -> Iterable[Feeds]:
        """True inputs of a graph where there are calibration frames, otherwise seeded ones."""
        if self.seen:
            return self.seen.recording.inputs(graph)
        return example_feeds(graph_specs(self.geometry)[graph], self.geometry)


def _copy_graph(bundle: Bundle, graph: Graph, folder: Path) -> None:
    entry = bundle.manifest.graphs[graph]
    for file in (entry, *entry.data):
        shutil.copy2(bundle.path / file.file, folder)


def _manifest(
    loaded: LoadedModel,
    geometry: Geometry,
    rounding: MemoryRounding,
    graphs: dict[Graph, GraphEntry],
) -> Manifest:
    return Manifest(
        format_version=FORMAT_VERSION,
        sam2_edge_version=version("sam2_edge"),
        model=ModelEntry(
            name=loaded.name, family=loaded.family, source=loaded.source, sha256=loaded.sha256
        ),
        image_size=geometry.image_size,
        normalization=NormalizationEntry(mean=IMAGE_MEAN, std=IMAGE_STD),
        memory=MemoryEntry(
            slots=geometry.memory_slots,
            pointers=geometry.pointers,
            channels=geometry.memory_channels,
            hidden=geometry.hidden,
            rounding=rounding,
            tokens=geometry.memory_tokens,
        ),
        graphs=graphs,
    )
