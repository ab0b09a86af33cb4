"""From a bundle of ONNX graphs to a bundle of TensorRT engines; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import Geometry, Graph, GraphSpec, graph_specs
from sam2_edge.bundle.manifest import Profile
from sam2_edge.bundle.storage import file_entry, new_bundle_folder, save_manifest
from sam2_edge.errors import BackendError, ExportError
from sam2_edge.export.tensorrt.builder import EngineRequest, ShapeRange, build_engine
from sam2_edge.runtime.backends.cuda.driver import device_info
from sam2_edge.runtime.backends.tensorrt_variant import (
    TensorRtVariant,
    import_tensorrt,
    rtx_targets,
)

DEFAULT_MAX_OBJECTS = 8


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What engines are built for.

    Attributes:
        variant: Classic TensorRT or TensorRT-RTX.
        compute_capabilities: (major, minor) of each GPU that TensorRT-RTX builds for. Empty for the
            GPU of this machine, the only choice with classic TensorRT.
        max_objects: Objects in one batch.
        max_points: Points of one object on one frame.
        max_cond_frames: Conditioning frames kept per object.
    """

    variant: TensorRtVariant
    compute_capabilities: Sequence[tuple[int, int]] = ()
    max_objects: int = DEFAULT_MAX_OBJECTS
    max_points: int = 16
    max_cond_frames: int = 4


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
    check_engine_options(options)
    engines = [g.value for g, entry in source.manifest.graphs.items() if entry.engine]
    if engines:
        raise ExportError(
            f"{source.path} already holds engines ({', '.join(engines)}); give a bundle of ONNX "
            "graphs, made by sam2-edge export with --target onnx"
        )
    geometry = source.manifest.geometry
    profile = engine_profile(geometry, options)
    entries = {}
    with new_bundle_folder(target, overwrite=overwrite) as folder:
        for graph, spec in graph_specs(geometry).items():
            name = f"{graph.value}.engine"
            request = EngineRequest(
                graph=source.graph_path(graph).resolve(),
                engine=(folder / name).resolve(),
                variant=options.variant,
                compute_capabilities=tuple(options.compute_capabilities),
                profile={axis: profile[axis] for axis in spec.dynamic_axes},
                shapes=engine_shapes(spec, profile),
                timing_cache=target.with_name(f"{target.name}.timing").resolve(),
            )
            engine = build_engine(request, partial(on_progress, graph))
            update = {"backend": options.variant, "data": (), "engine": engine}
            update |= file_entry(folder, name).model_dump()
            entries[graph] = source.manifest.graphs[graph].model_copy(update=update)
            on_progress(graph, "done")
        save_manifest(folder, source.manifest.model_copy(update={"graphs": entries}))
    return load_bundle(target)


def check_engine_options(options: EngineOptions) -> None:
    """Check that engines can be built on this machine; call it before long work.

    Raises:
        ExportError: A limit is below 1, or TensorRT does not build for one of the GPUs.
        BackendError: TensorRT or the GPU is missing.
    """
    for name in ("max_objects", "max_points", "max_cond_frames"):
        if getattr(options, name) < 1:
            raise ExportError(f"{name} is {getattr(options, name)}; give 1 or more")
    trt = import_tensorrt(options.variant)
    if options.variant == "tensorrt":
        if options.compute_capabilities:
            raise ExportError(
                "classic TensorRT builds for the GPU of this machine; leave out "
                "--compute-capability, or use --target tensorrt-rtx"
            )
        device_info()
        return
    wanted = [
        f"SM{major}{minor}" for major, minor in options.compute_capabilities or [_own_capability()]
    ]
    known = rtx_targets(trt)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ExportError(
            f"{options.variant} {trt.__version__} cannot build for {', '.join(unknown)}; "
            f"it knows {', '.join(known)}"
        )


def engine_profile(geometry: Geometry, options: EngineOptions) -> Profile:
    """Min, opt and max size of every dynamic axis."""
    cond_frames = options.max_cond_frames
    return {
        "M": (1, geometry.memory_slots, geometry.recent_memories + cond_frames),
        "P": (1, geometry.pointers, geometry.recent_pointers + cond_frames),
        "B": (1, 1, options.max_objects),
        "N": (1, 1, options.max_points),
    }


def engine_shapes(spec: GraphSpec, profile: Profile) -> dict[str, ShapeRange]:
    """Min, opt and max shape of every input of a graph."""
    sizes = [{axis: limits[i] for axis, limits in profile.items()} for i in range(3)]
    return {
        tensor.name: (
            tensor.shape(**sizes[0]),
            tensor.shape(**sizes[1]),
            tensor.shape(**sizes[2]),
        )
        for tensor in spec.inputs
    }


def _own_capability() -> tuple[int, int]:
    try:
        return device_info().compute_capability
    except BackendError as error:
        raise ExportError(
            f"engines for the GPU of this machine cannot be built: {error}. Without a GPU, name "
            "the GPUs to build for: --compute-capability 8.6,8.9"
        ) from error
