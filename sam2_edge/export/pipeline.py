"""From a loaded model to a bundle on disk: every graph exported, converted, checked, recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import (
    Feeds,
    Geometry,
    Graph,
    GraphSpec,
    GraphTarget,
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
)
from sam2_edge.bundle.storage import file_entry, new_bundle_folder, save_manifest
from sam2_edge.bundle.temporary import scratch_folder
from sam2_edge.calibration.frames import CalibrationFrames, collect_frames
from sam2_edge.calibration.recording import Recording, record_inputs
from sam2_edge.errors import ExportError
from sam2_edge.export.int8_search import Int8Plan, plan_int8
from sam2_edge.export.onnx_graph import export_onnx, opset_of
from sam2_edge.export.precision import (
    ExportOptions,
    cast_features,
    convert_to_fp16,
    convert_to_int8,
    float16_tensors,
)
from sam2_edge.export.validate import check_numbers, check_structure, example_feeds
from sam2_edge.models.checkpoints import LoadedModel
from sam2_edge.models.families import family_of
from sam2_edge.models.graphs import graph_modules

DEFAULT_OPTIONS = ExportOptions()

ProgressCallback = Callable[[Graph, str], None]


def export_bundle(
    loaded: LoadedModel,
    target: Path,
    options: ExportOptions = DEFAULT_OPTIONS,
    *,
    overwrite: bool = False,
    on_progress: ProgressCallback = lambda _graph, _step: None,
) -> Bundle:
    """Export a model as a bundle of ONNX graphs.

    Args:
        loaded: The model.
        target: The folder of the bundle; nothing is left there if the export fails.
        options: Precision, calibration and memory.
        overwrite: Replace a bundle at `target`.
        on_progress: Called with a graph and its current step, "done" at the end.

    Returns:
        The new bundle, loaded.

    Raises:
        ExportError: The options do not fit the model, or a graph does not agree with PyTorch.
        SourceError: The calibration frames cannot be read.
        BundleError: `target` exists or cannot be written.
    """
    family = family_of(loaded.model.config)
    geometry = replace(family.geometry(loaded.model.config), memory_tokens=options.memory_tokens)
    check_memory_tokens(geometry)
    memory = _memory_entry(geometry, options)
    with (
        new_bundle_folder(target, overwrite=overwrite) as folder,
        scratch_folder() as scratch,
    ):
        exporter = _Exporter(loaded, geometry, options, folder, on_progress)
        manifest = _manifest(loaded, geometry, memory, options.target, exporter.export())
        if options.precision != "fp32":
            full = Bundle(folder, manifest)
            seen = _observe(full, options, scratch, on_progress)
            converted = exporter.convert(manifest, seen)
            update = {"graphs": converted, "feature_dtype": options.feature_dtype}
            manifest = manifest.model_copy(update=update)
        save_manifest(folder, manifest)
    return load_bundle(target)


def check_memory_tokens(geometry: Geometry) -> None:
    """Raise ExportError unless attention sees some, but not all, tokens of a memory."""
    if geometry.memory_tokens is not None and geometry.memory_latents is not None:
        raise ExportError(
            f"{geometry.memory_tokens} memory tokens; they select cells of a memory, and a memory "
            f"of this model is {geometry.memory_latents} latents: leave it out"
        )
    tokens, side = geometry.memory_tokens, geometry.embedding_size
    if tokens is not None and not 1 <= tokens < side**2:
        raise ExportError(
            f"{tokens} memory tokens; a memory at {geometry.image_size} pixels has {side} x {side} "
            f"tokens: give 1 to {side**2 - 1}, or leave it out to attend to all"
        )


@dataclass(frozen=True, slots=True)
class _Observations:
    """Results of the calibration frames; a plan for INT8 only."""

    frames: CalibrationFrames
    recording: Recording
    plan: Int8Plan | None


def _observe(
    full: Bundle, options: ExportOptions, scratch: Path, on_progress: ProgressCallback
) -> _Observations | None:
    """Run a float32 bundle on the calibration frames, which are kept in `scratch`."""
    calibration = options.calibration
    if calibration is None:
        return None
    for graph in Graph:
        on_progress(graph, "recording inputs")
    size = full.manifest.image_size
    frames = collect_frames(calibration.source, scratch, size=size, count=calibration.frames)
    recording = record_inputs(full, frames, scratch)
    if options.precision != "int8":
        return _Observations(frames, recording, None)
    plan = plan_int8(
        full,
        frames,
        method=calibration.method,
        target=options.target,
        budget=calibration.budget,
        on_progress=partial(on_progress, Graph.IMAGE_ENCODER),
    )
    return _Observations(frames, recording, plan)


class _Exporter:
    """Writes and checks the graphs of one bundle."""

    def __init__(
        self,
        loaded: LoadedModel,
        geometry: Geometry,
        options: ExportOptions,
        folder: Path,
        on_progress: ProgressCallback,
    ) -> None:
        self._modules = graph_modules(
            loaded.model, memory_rounding=options.rounding, target=options.target
        )
        self._geometry = geometry
        self._specs = graph_specs(geometry)
        self._final = graph_specs(replace(geometry, feature_dtype=options.feature_dtype))
        self._options = options
        self._folder = folder
        self._on_progress = on_progress

    def export(self) -> dict[Graph, GraphEntry]:
        """Write every graph in float32 and check it on seeded inputs."""
        entries = {}
        for graph, module in self._modules.items():
            self._on_progress(graph, "exporting")
            export_onnx(module, self._specs[graph], self._path(graph))
            inputs = self._inputs(graph, None)
            entries[graph] = self._check(self._specs[graph], "fp32", inputs)
            if self._options.precision == "fp32":
                self._on_progress(graph, "done")
        return entries

    def convert(self, full: Manifest, seen: _Observations | None) -> dict[Graph, GraphEntry]:
        """Bring the float32 graphs to their precision and check them on what was seen."""
        entries = dict(full.graphs)
        for graph, precision in self._options.precisions.items():
            spec, calibration = self._final[graph], None
            changed = precision != "fp32" or spec != self._specs[graph]
            if changed:
                self._on_progress(graph, "changing the precision")
                calibration = self._convert(spec, precision, seen)
            if changed or seen is not None:
                entry = self._check(spec, precision, self._inputs(graph, seen))
                entries[graph] = entry.model_copy(update={"calibration": calibration})
            self._on_progress(graph, "done")
        return entries

    def _convert(
        self, spec: GraphSpec, precision: Precision, seen: _Observations | None
    ) -> CalibrationEntry | None:
        path, inputs = self._path(spec.graph), self._inputs(spec.graph, seen)
        features = float16_tensors(spec)
        if precision == "fp32":
            cast_features(path, features)
            return None
        if precision == "fp16":
            convert_to_fp16(path, inputs, features)
            if seen is None:
                return None
            return CalibrationEntry(source=seen.frames.source, frames=seen.frames.numbers)
        assert seen is not None  # ExportOptions requires calibration for int8
        assert seen.plan is not None
        assert self._options.calibration is not None
        return CalibrationEntry(
            source=seen.frames.source,
            frames=seen.frames.numbers,
            method=self._options.calibration.method,
            ranges=convert_to_int8(path, seen.plan, self._options.target, inputs, features),
            left_out=seen.plan.left_out,
            sensitivity=seen.plan.errors,
        )

    def _check(self, spec: GraphSpec, precision: Precision, inputs: Iterable[Feeds]) -> GraphEntry:
        """Check a file against the contract and PyTorch, and describe it."""
        graph = spec.graph
        path = self._path(graph)
        self._on_progress(graph, "checking the structure")
        check_structure(path, spec)
        self._on_progress(graph, "comparing with PyTorch")
        rounded = self._options.rounding == "bfloat16"
        module = self._modules[graph]
        parity = check_numbers(path, module, spec, inputs, rounded=rounded, precision=precision)
        weights = self._folder.glob(f"{path.name}.data")
        return GraphEntry(
            **file_entry(self._folder, path.name).model_dump(),
            backend="onnxruntime",
            precision=precision,
            opset=opset_of(path),
            inputs=spec.inputs,
            outputs=spec.outputs,
            data=tuple(file_entry(self._folder, file.name) for file in weights),
            parity=parity,
        )

    def _path(self, graph: Graph) -> Path:
        return self._folder / f"{graph.value}.onnx"

    def _inputs(self, graph: Graph, seen: _Observations | None) -> Iterable[Feeds]:
        """Inputs recorded on calibration frames, or seeded ones."""
        if seen is not None and seen.recording.has(graph):
            return seen.recording.inputs(graph)
        return example_feeds(self._specs[graph], self._geometry)


def _manifest(
    loaded: LoadedModel,
    geometry: Geometry,
    memory: MemoryEntry,
    target: GraphTarget,
    graphs: dict[Graph, GraphEntry],
) -> Manifest:
    family = family_of(loaded.model.config)
    return Manifest(
        format_version=FORMAT_VERSION,
        sam2_edge_version=version("sam2_edge"),
        model=ModelEntry(
            name=loaded.name, family=loaded.family, source=loaded.source, sha256=loaded.sha256
        ),
        image_size=geometry.image_size,
        stride=geometry.stride,
        normalization=NormalizationEntry(mean=family.mean, std=family.std),
        memory=memory,
        target=target,
        feature_dtype=geometry.feature_dtype,
        graphs=graphs,
    )


def _memory_entry(geometry: Geometry, options: ExportOptions) -> MemoryEntry:
    try:
        return MemoryEntry(
            slots=geometry.memory_slots,
            pointers=geometry.pointers,
            channels=geometry.memory_channels,
            hidden=geometry.hidden,
            rounding=options.rounding,
            latents=geometry.memory_latents,
            tokens=geometry.memory_tokens,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ExportError(
            f"the model's memory has {first['loc'][0]} {first['input']}: {first['msg']}; give "
            "another configuration"
        ) from error
