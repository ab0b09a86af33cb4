"""From a bundle of ONNX graphs to a bundle of TensorRT engines; needs no PyTorch."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import Graph, graph_specs
from sam2_edge.bundle.manifest import EngineEntry, Manifest
from sam2_edge.bundle.storage import file_entry, new_bundle_folder, save_manifest
from sam2_edge.errors import BackendError, ExportError
from sam2_edge.export.tensorrt.builder import EngineRequest, build_engine
from sam2_edge.export.tensorrt.options import (
    EngineOptions,
    check_engine_options,
    check_precisions,
)
from sam2_edge.export.tensorrt.profiles import engine_profiles, engine_shapes
from sam2_edge.export.tensorrt.reference import take_references
from sam2_edge.runtime.backends.cuda.driver import DeviceInfo, device_info
from sam2_edge.runtime.backends.engine_check import (
    REFERENCE_FILE,
    check_engines,
    passed_file,
    remember,
)
from sam2_edge.runtime.backends.tensorrt_variant import TensorRtVariant

_log = logging.getLogger(__name__)

_MADE_BY = "made by sam2-edge export with --target cuda"


def build_engines(
    source: Bundle,
    target: Path,
    options: EngineOptions,
    *,
    overwrite: bool = False,
    on_progress: Callable[[Graph, str], None] = lambda _graph, _step: None,
) -> Bundle:
    """Build an engine from each ONNX graph of a bundle.

    Args:
        source: A bundle of ONNX graphs.
        target: The folder of the new bundle; nothing is left there if the build fails.
        options: What the engines are built for.
        overwrite: Replace a bundle at `target`.
        on_progress: Called with a graph and what the builder does, "done" at the end.

    Returns:
        The new bundle, loaded.

    Raises:
        ExportError: `source` holds engines, or an engine cannot be built.
        BackendError: TensorRT or the GPU is missing.
        BundleError: `target` exists or cannot be written.
    """
    _check_source(source, options)
    manifest = source.manifest
    profiles = engine_profiles(manifest.geometry, options)
    specs = graph_specs(manifest.geometry)
    entries = {}
    with new_bundle_folder(target, overwrite=overwrite) as folder, _kept_kernels(folder, target):
        referenced = take_references(
            source,
            profiles,
            folder / REFERENCE_FILE,
            lambda graph: on_progress(graph, "computing reference outputs"),
        )
        for graph, profile in profiles.items():
            name = f"{graph.value}.engine"
            request = EngineRequest(
                graph=source.graph_path(graph).resolve(),
                engine=(folder / name).resolve(),
                variant=options.variant,
                compute_capabilities=tuple(options.compute_capabilities),
                profile=profile,
                shapes=engine_shapes(specs[graph], profile),
                timing_cache=target.with_name(f"{target.name}.timing").resolve(),
            )
            engine = build_engine(request, partial(on_progress, graph))
            update = {"backend": options.variant, "data": (), "engine": engine}
            update |= file_entry(folder, name).model_dump()
            entries[graph] = manifest.graphs[graph].model_copy(update=update)
            on_progress(graph, f"built{_memory_note(engine)}")
        reference = file_entry(folder, REFERENCE_FILE) if referenced else None
        manifest = manifest.model_copy(update={"graphs": entries, "reference": reference})
        save_manifest(folder, manifest)
        gpu = _gpu_of(manifest) if referenced else None
        checked = _check(Bundle(folder, manifest), options.variant, on_progress) if gpu else None
    for graph in entries:
        on_progress(graph, "done")
    built = load_bundle(target)
    if gpu and checked is not None:
        remember(passed_file(built, gpu.name), checked)
    return built


def _check_source(source: Bundle, options: EngineOptions) -> None:
    """Raise ExportError unless engines can be built from a bundle; warn if they will be slow."""
    check_engine_options(options)
    graphs = source.manifest.graphs
    engines = [graph.value for graph, entry in graphs.items() if entry.engine]
    if engines:
        raise ExportError(
            f"{source.path} already holds engines ({', '.join(engines)}); give a bundle of ONNX "
            f"graphs, {_MADE_BY}"
        )
    precisions = {entry.precision for entry in graphs.values()}
    check_precisions(options, precisions, rounding=source.manifest.memory.rounding)
    if source.manifest.target == "gpu":
        return
    if "int8" in precisions:
        raise ExportError(
            f"{source.path} has INT8 graphs in the form for CPUs, which TensorRT refuses; give a "
            f"bundle {_MADE_BY}"
        )
    _log.warning(
        "%s has graphs in the form for CPUs: their attention is not fused, so that the engines are "
        "slower and need more memory; better give a bundle %s",
        source.path,
        _MADE_BY,
    )


def _check(
    bundle: Bundle, variant: TensorRtVariant, on_progress: Callable[[Graph, str], None]
) -> dict[str, float]:
    """Run all engines against their reference outputs, on the GPU of this machine."""
    from sam2_edge.runtime.backends.tensorrt import TensorRt

    with TensorRt(bundle, variant) as backend:
        return check_engines(bundle, backend, lambda graph: on_progress(graph, "checking"))


def _gpu_of(manifest: Manifest) -> DeviceInfo | None:
    """Return the GPU of this machine if the engines are for it."""
    try:
        gpu = device_info()
    except BackendError:
        return None
    engines = [entry.engine for entry in manifest.graphs.values() if entry.engine]
    return gpu if all(gpu.compute_capability in e.compute_capabilities for e in engines) else None


@contextmanager
def _kept_kernels(folder: Path, target: Path) -> Iterator[None]:
    """Keep the kernels that the check compiles beside the finished bundle."""
    made = folder.with_name(f"{folder.name}.kernels")
    kept = target.resolve().with_name(f"{target.resolve().name}.kernels")
    try:
        yield
        for file in made.glob("*"):
            kept.mkdir(exist_ok=True)
            file.replace(kept / file.name)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _memory_note(engine: EngineEntry) -> str:
    if engine.activation_bytes is None:
        return ""
    return f", {engine.activation_bytes / 2**20:.0f} MiB of activation memory"
