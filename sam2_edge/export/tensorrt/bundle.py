"""From a bundle of ONNX graphs to a bundle of TensorRT engines; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import Graph, graph_specs
from sam2_edge.bundle.manifest import GraphEntry
from sam2_edge.bundle.storage import check_new_bundle, file_entry, new_bundle_folder, save_manifest
from sam2_edge.errors import BackendError, ExportError
from sam2_edge.export.tensorrt.builder import (
    EngineRequest,
    build_engine,
    engine_profile,
    engine_shapes,
)
from sam2_edge.runtime.backends.cuda.driver import DeviceInfo, device_info
from sam2_edge.runtime.backends.tensorrt_variant import (
    TensorRtVariant,
    import_tensorrt,
    rtx_targets,
)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What engines are for.

    compute_capabilities: (major, minor) of each GPU that TensorRT-RTX builds for; none for the GPU
    of this machine, the only choice with classic TensorRT. objects, points, prompted: at most so
    many objects in one batch, points of one object on one frame, prompted frames kept per object.
    """

    variant: TensorRtVariant
    compute_capabilities: Sequence[tuple[int, int]] = ()
    objects: int = 8
    points: int = 16
    conditioning: int = 4


def build_engines(
    source: Bundle,
    target: Path,
    options: EngineOptions,
    *,
    overwrite: bool = False,
    watch: Callable[[Graph, str], None] | None = None,
) -> Bundle:
    """Build an engine of each ONNX graph of `source`, into a new bundle at `target`.

    Raises ExportError, BackendError or BundleError; nothing is left at `target` then.
    """
    check_engine_options(options)
    check_new_bundle(target, overwrite=overwrite)
    engines = [g.value for g, entry in source.manifest.graphs.items() if entry.engine]
    if engines:
        raise ExportError(
            f"{source.path} holds engines already ({', '.join(engines)}); give a bundle of ONNX "
            "graphs, made with --target onnx"
        )
    with new_bundle_folder(target, overwrite=overwrite) as folder:
        cache = target.with_name(f"{target.name}.timing")
        graphs = {}
        for graph in Graph:
            told = _told(graph, watch)
            graphs[graph] = _engine(source, graph, folder, options, cache, told)
            told("done")
        save_manifest(folder, source.manifest.model_copy(update={"graphs": graphs}))
    return load_bundle(target)


def check_engine_options(options: EngineOptions) -> None:
    """Raise ExportError or BackendError unless engines can be built so; for asking before long
    work.
    """
    for name in ("objects", "points", "prompted"):
        if getattr(options, name) < 1:
            raise ExportError(f"engines for {getattr(options, name)} {name}: give 1 or more")
    trt = import_tensorrt(options.variant)
    wanted = [f"SM{major}{minor}" for major, minor in options.compute_capabilities]
    if options.variant == "tensorrt":
        if wanted:
            raise ExportError(
                "classic TensorRT builds for the GPU of the machine it runs on: leave out "
                "--compute-capability, or use --target tensorrt-rtx"
            )
        device_info()
        return
    if not wanted:
        wanted = ["SM{}{}".format(*_gpu().compute_capability)]
    known = rtx_targets(trt)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ExportError(
            f"{options.variant} {trt.__version__} cannot build for {', '.join(unknown)}; "
            f"it knows {', '.join(known)}"
        )


def _gpu() -> DeviceInfo:
    """The GPU of this machine, to build for."""
    try:
        return device_info()
    except BackendError as error:
        raise ExportError(
            f"engines for the GPU of this machine cannot be built: {error}. Without one, name the "
            "GPUs to build for: --compute-capability 8.6,8.9"
        ) from error


def _told(graph: Graph, watch: Callable[[Graph, str], None] | None) -> Callable[[str], None]:
    return (lambda now: watch(graph, now)) if watch else (lambda _now: None)


def _engine(
    source: Bundle,
    graph: Graph,
    folder: Path,
    options: EngineOptions,
    cache: Path,
    told: Callable[[str], None],
) -> GraphEntry:
    profile = engine_profile(
        source.manifest.geometry,
        objects=options.objects,
        points=options.points,
        conditioning=options.conditioning,
    )
    spec = graph_specs(source.manifest.geometry)[graph]
    name = f"{graph.value}.engine"
    request = EngineRequest(
        graph=source.graph_path(graph).resolve(),
        engine=(folder / name).resolve(),
        variant=options.variant,
        compute_capabilities=tuple(options.compute_capabilities),
        profile={axis: profile[axis] for axis in spec.dynamic_axes},
        shapes=engine_shapes(spec, profile),
        cache=cache.resolve(),
    )
    engine = build_engine(request, told)
    return source.manifest.graphs[graph].model_copy(
        update={
            **file_entry(folder, name).model_dump(),
            "backend": options.variant,
            "data": (),
            "engine": engine,
        }
    )
