"""From a loaded model to a bundle on disk: every graph exported, checked and recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from sam2_edge.bundle import (
    FORMAT_VERSION,
    Bundle,
    CalibrationEntry,
    GraphEntry,
    Manifest,
    MemoryEntry,
    ModelEntry,
    NormalisationEntry,
    check_new_bundle,
    file_entry,
    load_bundle,
    new_bundle_folder,
    save_manifest,
    tensor_entries,
)
from sam2_edge.calibration.frames import CalibrationFrames, collect_frames
from sam2_edge.calibration.int8 import Engine
from sam2_edge.calibration.ranges import Method
from sam2_edge.contract import Geometry, Graph, MemoryRounding, Precision, graph_specs
from sam2_edge.errors import ExportError
from sam2_edge.export.check import check_numbers, check_structure, example_feeds
from sam2_edge.export.int8_search import search_int8
from sam2_edge.export.onnx_graph import export_onnx, opset_of
from sam2_edge.export.precision import POLICIES, Calibration, Policy, halve, quantise
from sam2_edge.models.checkpoints import LoadedModel
from sam2_edge.models.graphs import IMAGE_MEAN, IMAGE_STD, graph_modules
from sam2_edge.models.variants import geometry_of

CHECKED_FRAMES = 4
"""Calibration frames on which an INT8 graph is compared with PyTorch."""

ProgressCallback = Callable[[Graph, str], None]
"""Called with a graph and what happens to it now: "export", "precision" (only where it is changed),
"structure", "numbers" or "done"."""


def export_bundle(
    loaded: LoadedModel,
    target: Path,
    *,
    precision: Policy = "fp32",
    engine: Engine = "cpu",
    calibration: Calibration | None = None,
    memory_rounding: MemoryRounding = "bfloat16",
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> Bundle:
    """Export a model as a bundle of ONNX graphs and return it, loaded.

    precision: see `POLICIES`. engine: whose way of writing INT8 graphs to follow. calibration:
    needed for "int8".
    memory_rounding: "bfloat16" stores memory as the published predictor does, "none" in full.

    Raises ExportError, SourceError or BundleError; nothing is left at `target` then.
    """
    check_calibration(precision, calibration)
    check_new_bundle(target, overwrite=overwrite)
    report = progress or _no_progress
    geometry = geometry_of(loaded.model.config)
    modules = graph_modules(loaded.model, memory_rounding=memory_rounding)
    with new_bundle_folder(target, overwrite=overwrite) as folder, TemporaryDirectory() as kept:
        exporter = _Exporter(
            folder=folder,
            geometry=geometry,
            rounded=memory_rounding == "bfloat16",
            int8=_int8(loaded, calibration, engine, Path(kept), report),
            report=report,
        )
        precisions = POLICIES[engine][precision]
        graphs = {
            graph: exporter.export(graph, module, precisions[graph])
            for graph, module in modules.items()
        }
        save_manifest(folder, _manifest(loaded, geometry, memory_rounding, graphs))
    return load_bundle(target)


def check_calibration(precision: Policy, calibration: Calibration | None) -> None:
    """Raise ExportError unless calibration is given where it is needed, and only there."""
    budget = calibration.budget if calibration else None
    if budget is not None and not 0 <= budget < 1:
        raise ExportError(f"a budget of {budget} of J&F; give 0 to 1, such as 0.005")
    if precision == "int8" and calibration is None:
        raise ExportError(
            "int8 needs frames to calibrate with; give --calibrate with a video or a folder of "
            "images of what the camera will see"
        )
    if precision != "int8" and calibration is not None:
        raise ExportError(f"{precision} is not calibrated; leave out --calibrate, or choose int8")


def _int8(
    loaded: LoadedModel,
    calibration: Calibration | None,
    engine: Engine,
    kept: Path,
    report: ProgressCallback,
) -> _Int8 | None:
    """Frames, written to `kept`, and layers for INT8."""
    if calibration is None:
        return None
    size = geometry_of(loaded.model.config).image_size
    frames = collect_frames(calibration.source, kept, size=size, count=calibration.frames)
    if calibration.budget is None:
        return _Int8(engine, frames, calibration.method, {}, ())
    full = export_bundle(loaded, kept / "full", progress=report)
    found = search_int8(
        full,
        frames,
        method=calibration.method,
        engine=engine,
        budget=calibration.budget,
        watch=lambda now: report(Graph.IMAGE_ENCODER, now),
    )
    return _Int8(engine, frames, calibration.method, found.errors, found.left_out)


def _no_progress(_graph: Graph, _step: str) -> None:
    """For callers that do not watch."""


@dataclass(frozen=True, slots=True)
class _Int8:
    """What INT8 graphs are made from. errors, left_out: as in `Search`."""

    engine: Engine
    frames: CalibrationFrames
    method: Method
    errors: dict[str, float]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Exporter:
    """What every graph of one export has in common."""

    folder: Path
    geometry: Geometry
    rounded: bool
    int8: _Int8 | None
    report: ProgressCallback

    def export(self, graph: Graph, module: nn.Module, precision: Precision) -> GraphEntry:
        """Write one graph, check it, and say what it is."""
        spec = graph_specs(self.geometry)[graph]
        path = self.folder / f"{graph.value}.onnx"
        self.report(graph, "export")
        export_onnx(module, spec, path)
        calibrated = self._change(graph, path, precision)
        self.report(graph, "structure")
        check_structure(path, spec)
        self.report(graph, "numbers")
        examples = example_feeds(spec, self.geometry)
        if self.int8 and calibrated:
            examples = list(islice(self.int8.frames, CHECKED_FRAMES))
        parity = check_numbers(
            path, module, spec, examples, rounded=self.rounded, precision=precision
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
        """Bring an exported float32 graph to its precision."""
        if precision == "fp32":
            return None
        self.report(graph, "precision")
        if precision == "fp16":
            halve(path, example_feeds(graph_specs(self.geometry)[graph], self.geometry)[-1])
            return None
        int8 = self.int8
        assert int8 is not None  # check_calibration has seen to it
        return quantise(
            path,
            int8.frames,
            int8.method,
            int8.engine,
            errors=int8.errors,
            left_out=int8.left_out,
        )


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
        normalisation=NormalisationEntry(mean=IMAGE_MEAN, std=IMAGE_STD),
        memory=MemoryEntry(
            slots=geometry.memory_slots,
            pointers=geometry.pointers,
            channels=geometry.memory_channels,
            hidden=geometry.hidden,
            rounding=rounding,
        ),
        graphs=graphs,
    )
