"""TensorRT and TensorRT-RTX; tensors between engines stay in GPU memory."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from types import ModuleType
from typing import Any, cast

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import Graph, GraphSpec, TensorSpec
from sam2_edge.bundle.manifest import EngineEntry
from sam2_edge.errors import BackendError
from sam2_edge.runtime.backends.base import Tensor
from sam2_edge.runtime.backends.cuda.backend import DeviceBackend, axis_sizes
from sam2_edge.runtime.backends.cuda.driver import DeviceInfo, device_info
from sam2_edge.runtime.backends.cuda.memory import DeviceTensor
from sam2_edge.runtime.backends.runtime_cache import new_context
from sam2_edge.runtime.backends.signature import DYNAMIC, check_signature
from sam2_edge.runtime.backends.tensorrt_variant import TensorRtVariant, import_tensorrt

_log = logging.getLogger(__name__)

_REBUILD = "build the engines again on this machine: sam2-edge build-engines BUNDLE --target"


class TensorRt(DeviceBackend):
    """Runs a bundle of engines of one variant.

    Raises:
        BackendError: If the engines were built for another variant, version or GPU, if one cannot
            be loaded, or if there is no GPU or too little memory on it.
        BundleError: If an engine does not follow the contract.
    """

    def __init__(self, bundle: Bundle, variant: TensorRtVariant) -> None:
        entries = {
            graph: entry.engine
            for graph, entry in bundle.manifest.graphs.items()
            if entry.engine and entry.engine.variant == variant
        }
        missing = [graph.value for graph in Graph if graph not in entries]
        if missing:
            raise BackendError(
                f"{bundle.path} has no {variant} engine for {', '.join(missing)}; build them from "
                f"a bundle of ONNX graphs: sam2-edge build-engines BUNDLE --target {variant}"
            )
        trt = import_tensorrt(variant)
        gpu = device_info()
        for graph, entry in entries.items():
            check_engine_fits(entry, trt.__version__, gpu, what=str(bundle.graph_path(graph)))
        self.name: str = variant
        super().__init__(bundle.manifest.geometry)
        self._runtime = trt.Runtime(_logger(trt))
        self._engines = {
            graph: _Engine(
                self._runtime, bundle, self._specs[graph], entry, self._memory.stream, gpu
            )
            for graph, entry in entries.items()
        }

    def run(self, graph: Graph, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one engine on tensors in GPU memory."""
        spec = self._specs[graph]
        tensors = cast("Mapping[str, DeviceTensor]", inputs)
        sizes = axis_sizes(spec, tensors)
        self._engines[graph].check_sizes(sizes)
        outputs = self._outputs(spec, sizes)
        self._engines[graph].run(tensors, outputs)
        return cast("dict[str, Tensor]", outputs)


class _Engine:
    """One engine with its execution context."""

    def __init__(
        self,
        runtime: Any,
        bundle: Bundle,
        spec: GraphSpec,
        entry: EngineEntry,
        stream: int,
        gpu: DeviceInfo,
    ) -> None:
        graph = spec.graph
        path = bundle.graph_path(graph)
        self._graph, self._profile, self._stream = graph, entry.profile, stream
        self._engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise BackendError(
                f"{path} cannot be loaded by {entry.variant}, although its hash is correct; "
                f"free GPU memory, update the NVIDIA driver, or {_REBUILD} {entry.variant}"
            )
        check_signature(path, spec, *engine_tensors(self._engine))
        identity = (bundle.manifest.graphs[graph].sha256, entry.version, gpu.name)
        key = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
        folder = bundle.path.resolve()
        kernels = folder.with_name(f"{folder.name}.kernels") / f"{graph.value}-{key}"
        self._context = new_context(self._engine, kernels)
        if self._context is None:
            raise BackendError(
                f"{path} needs {self._engine.device_memory_size_v2 / 2**20:.0f} MiB of free GPU "
                "memory to run; free some, or export with a smaller image size"
            )

    def check_sizes(self, sizes: Mapping[str, int]) -> None:
        """Raise BackendError if an axis is outside the range that the engine was built for."""
        for axis, size in sizes.items():
            low, _, high = self._profile[axis]
            if not low <= size <= high:
                raise BackendError(
                    f"{self._graph.value} was built for {low} to {high} {_AXES[axis][0]}, not "
                    f"{size}; {_AXES[axis][1]}"
                )

    def run(self, inputs: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor]) -> None:
        """Enqueue the engine on the stream."""
        tensors = {**inputs, **outputs}
        done = [self._context.set_input_shape(name, t.shape) for name, t in inputs.items()]
        done += [self._context.set_tensor_address(name, t.address) for name, t in tensors.items()]
        if not (all(done) and self._context.execute_async_v3(self._stream)):
            raise BackendError(
                f"{self._graph.value} failed on the GPU; TensorRT's messages are in the log"
            )


_AXES = {
    "B": ("objects at once", "export with a larger --max-objects"),
    "N": ("points", "give fewer points, or a box"),
    "M": ("memories", "lower max_cond_frames"),
    "P": ("object pointers", "lower max_cond_frames"),
}
"""What each dynamic axis counts, and the remedy if it is out of range."""


_DTYPES = {"FLOAT": "float32", "INT32": "int32", "UINT8": "uint8"}


def engine_tensors(engine: Any) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Return the inputs and the outputs of a loaded engine."""
    tensors: dict[str, list[TensorSpec]] = {"INPUT": [], "OUTPUT": []}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dtype = engine.get_tensor_dtype(name).name
        axes = tuple(DYNAMIC if size < 0 else size for size in engine.get_tensor_shape(name))
        mode = engine.get_tensor_mode(name).name
        tensors[mode].append(TensorSpec(name, _DTYPES.get(dtype, dtype), axes))
    return tensors["INPUT"], tensors["OUTPUT"]


def check_engine_fits(entry: EngineEntry, version: str, gpu: DeviceInfo, *, what: str) -> None:
    """Raise BackendError unless an engine was built for this version of TensorRT and this GPU."""
    if entry.version != version:
        raise BackendError(
            f"{what} was built with {entry.variant} {entry.version}, but {version} is installed; "
            f"{_REBUILD} {entry.variant}"
        )
    if gpu.compute_capability not in entry.compute_capabilities:
        built_for = ", ".join(f"{a}.{b}" for a, b in entry.compute_capabilities)
        here = "{}.{}".format(*gpu.compute_capability)
        raise BackendError(
            f"{what} was built for compute capability {built_for}, but {gpu.name} has {here}; "
            f"{_REBUILD} {entry.variant}"
        )


def _logger(trt: ModuleType) -> Any:
    """Return a logger that forwards TensorRT's messages to Python's logging."""

    class Logger(trt.ILogger):  # type: ignore[misc,name-defined] # a module as a value
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            serious = severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)
            _log.log(logging.ERROR if serious else logging.DEBUG, "%s", message)

    return Logger()
