"""From a loaded model to a bundle on disk: every graph exported, checked and recorded."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from torch import nn

from sam2_edge.bundle import (
    FORMAT_VERSION,
    Bundle,
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
from sam2_edge.contract import Geometry, Graph, GraphSpec, MemoryRounding, Precision, graph_specs
from sam2_edge.export.check import check_numbers, check_structure, example_feeds
from sam2_edge.export.onnx_graph import OPSET, export_onnx
from sam2_edge.export.precision import POLICIES, Policy, halve
from sam2_edge.models.checkpoints import LoadedModel
from sam2_edge.models.graphs import IMAGE_MEAN, IMAGE_STD, graph_modules
from sam2_edge.models.variants import geometry_of

ProgressCallback = Callable[[Graph, str], None]
"""Called with a graph and what happens to it now: "export", "precision" (only where it is changed),
"structure", "numbers" or "done"."""


def export_bundle(
    loaded: LoadedModel,
    target: Path,
    *,
    precision: Policy = "fp32",
    memory_rounding: MemoryRounding = "bfloat16",
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> Bundle:
    """Export a model as a bundle of ONNX graphs and return it, loaded.

    precision: see `POLICIES`.
    memory_rounding: "bfloat16" stores memory as the published predictor does, "none" in full.

    Raises ExportError or BundleError; nothing is left at `target` then.
    """
    check_new_bundle(target, overwrite=overwrite)
    geometry = geometry_of(loaded.model.config)
    specs = graph_specs(geometry)
    report = progress or _no_progress
    with new_bundle_folder(target, overwrite=overwrite) as folder:
        modules = graph_modules(loaded.model, memory_rounding=memory_rounding)
        rounded = memory_rounding == "bfloat16"
        precisions = POLICIES[precision]
        graphs = {
            graph: _export_graph(
                module,
                specs[graph],
                geometry,
                folder,
                report,
                rounded=rounded,
                precision=precisions[graph],
            )
            for graph, module in modules.items()
        }
        save_manifest(folder, _manifest(loaded, geometry, memory_rounding, graphs))
    return load_bundle(target)


def _no_progress(_graph: Graph, _step: str) -> None:
    """For callers that do not watch."""


def _export_graph(
    module: nn.Module,
    spec: GraphSpec,
    geometry: Geometry,
    folder: Path,
    report: ProgressCallback,
    *,
    rounded: bool,
    precision: Precision,
) -> GraphEntry:
    name = f"{spec.graph.value}.onnx"
    path = folder / name
    report(spec.graph, "export")
    export_onnx(module, spec, path)
    if precision == "fp16":
        report(spec.graph, "precision")
        halve(path, example_feeds(spec, geometry)[-1])
    report(spec.graph, "structure")
    check_structure(path, spec)
    report(spec.graph, "numbers")
    parity = check_numbers(path, module, spec, geometry, rounded=rounded, precision=precision)
    data = [file_entry(folder, p.name) for p in sorted(folder.glob(f"{name}.data"))]
    report(spec.graph, "done")
    return GraphEntry(
        **file_entry(folder, name).model_dump(),
        backend="onnxruntime",
        precision=precision,
        opset=OPSET,
        inputs=tensor_entries(spec.inputs),
        outputs=tensor_entries(spec.outputs),
        data=tuple(data),
        parity=parity,
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
