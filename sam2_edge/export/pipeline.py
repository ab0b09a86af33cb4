"""From a loaded model to a bundle on disk: every graph exported, checked and recorded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path

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
    geometry = geometry_of(loaded.model.config)
    modules = graph_modules(loaded.model, memory_rounding=memory_rounding)
    with new_bundle_folder(target, overwrite=overwrite) as folder, ExitStack() as stack:
        frames = None
        if calibration is not None:
            kept = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sam2_edge")))
            frames = collect_frames(
                calibration.source, kept, size=geometry.image_size, count=calibration.frames
            )
        exporter = _Exporter(
            folder=folder,
            geometry=geometry,
            rounded=memory_rounding == "bfloat16",
            engine=engine,
            frames=frames,
            method=calibration.method if calibration else "minmax",
            report=progress or _no_progress,
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
    if precision == "int8" and calibration is None:
        raise ExportError(
            "int8 needs frames to calibrate with; give --calibrate with a video or a folder of "
            "images of what the camera will see"
        )
    if precision != "int8" and calibration is not None:
        raise ExportError(f"{precision} is not calibrated; leave out --calibrate, or choose int8")


def _no_progress(_graph: Graph, _step: str) -> None:
    """For callers that do not watch."""


@dataclass(frozen=True, slots=True)
class _Exporter:
    """What every graph of one export has in common."""

    folder: Path
    geometry: Geometry
    rounded: bool
    engine: Engine
    frames: CalibrationFrames | None
    method: Method
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
        if calibrated is not None and self.frames is not None:
            examples = list(islice(self.frames, CHECKED_FRAMES))
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
        assert self.frames is not None  # check_calibration has seen to it
        return quantise(path, self.frames, self.method, self.engine)


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
