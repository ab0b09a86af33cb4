"""TensorRT and TensorRT-RTX; tensors between engines stay in GPU memory."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping
from types import ModuleType
from typing import Any, cast

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import Graph, GraphSpec, TensorSpec
from sam2_edge.bundle.manifest import EngineEntry
from sam2_edge.errors import BackendError
from sam2_edge.runtime.backends.base import Tensor
from sam2_edge.runtime.backends.contexts import Contexts, EngineRun, Scratch
from sam2_edge.runtime.backends.cuda.backend import DeviceBackend, axis_sizes
from sam2_edge.runtime.backends.cuda.driver import DeviceInfo, device_info
from sam2_edge.runtime.backends.cuda.memory import DeviceMemory, DeviceTensor
from sam2_edge.runtime.backends.cuda.pool import ALIGNMENT
from sam2_edge.runtime.backends.runtime_cache import ContextFactory
from sam2_edge.runtime.backends.signature import DYNAMIC, check_signature
from sam2_edge.runtime.backends.tensorrt_variant import TensorRtVariant, import_tensorrt, logger

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
        missing = [graph.value for graph in bundle.manifest.graphs if graph not in entries]
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
        # TensorRT-RTX captures graphs itself, one per engine: see `runtime_cache`.
        super().__init__(bundle.manifest.geometry, whole_frames=variant == "tensorrt")
        self._engines: dict[Graph, _Engine] = {}
        self._scratch = Scratch(self._memory)
        self.commands.on_drop(self._drop)
        self._runtime = trt.Runtime(logger(trt))
        for graph, entry in entries.items():
            spec = self._specs[graph]
            self._engines[graph] = _Engine(
                trt, self._runtime, bundle, spec, entry, self._scratch, gpu
            )

    def run(
        self,
        graph: Graph,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Run one engine on tensors in GPU memory."""
        self._check_open()
        spec, loaded = self._specs[graph], self._engines[graph]
        tensors = cast("Mapping[str, DeviceTensor]", inputs)
        sizes = axis_sizes(spec, tensors)
        loaded.check_sizes(sizes)
        results = self._outputs(spec, sizes, outputs)
        placed = {name: self._aligned(t) for name, t in results.items()}
        for name, tensor in tensors.items():
            placed[name] = self._aligned(tensor)
            if placed[name] is not tensor:
                self._memory.copy(tensor, placed[name])
        run = EngineRun(
            graph.value,
            tuple((i.name, tuple(tensors[i.name].shape)) for i in spec.inputs),
            tuple((t.name, placed[t.name].address) for t in (*spec.inputs, *spec.outputs)),
        )
        self._scratch.reserve(loaded.contexts.needed_memory(run))
        memory = self._memory
        self.commands.submit(run, lambda captured: loaded.enqueue(run, memory, captured=captured))
        for name, result in results.items():
            if placed[name] is not result:
                self._memory.copy(placed[name], result)
        return cast("dict[str, Tensor]", results)

    def _aligned(self, tensor: DeviceTensor) -> DeviceTensor:
        """Return a tensor, or a new one in its place if TensorRT would refuse its address.

        Rows in the middle of a tensor may start anywhere: masks of odd sizes, in several batches.
        """
        if tensor.address % ALIGNMENT == 0:
            return tensor
        return self._memory.empty(tensor.shape, tensor.dtype)

    def _drop(self, keys: Iterable[Hashable]) -> None:
        """Drop the contexts of graphs that are gone."""
        for loaded in self._engines.values():
            loaded.contexts.drop(keys)

    def _close_engines(self) -> None:
        try:
            for loaded in getattr(self, "_engines", {}).values():
                loaded.close()
        finally:
            self._engines = {}
            self._runtime = None
            if hasattr(self, "_scratch"):
                self._scratch.free()


class _Engine:
    """One engine with its execution contexts."""

    def __init__(
        self,
        trt: ModuleType,
        runtime: Any,
        bundle: Bundle,
        spec: GraphSpec,
        entry: EngineEntry,
        scratch: Scratch,
        gpu: DeviceInfo,
    ) -> None:
        graph = spec.graph
        path = bundle.graph_path(graph)
        self._graph, self._profile = graph, entry.profile
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
        factory = ContextFactory(trt, self._engine, kernels)
        self.contexts = Contexts(factory, scratch, int(self._engine.device_memory_size_v2))

    def check_sizes(self, sizes: Mapping[str, int]) -> None:
        """Raise BackendError if an axis is outside the range that the engine was built for."""
        for axis, size in sizes.items():
            low, _, high = self._profile[axis]
            if not low <= size <= high:
                what, remedy = _AXES.get(axis, (f"of axis {axis}", "build the engines again"))
                raise BackendError(
                    f"{self._graph.value} was built for {low} to {high} {what}, not {size}; "
                    f"{remedy}"
                )

    def enqueue(self, run: EngineRun, memory: DeviceMemory, *, captured: bool) -> None:
        """Enqueue a run on the stream; see `Contexts.enqueue`."""
        if not self.contexts.enqueue(run, memory, captured=captured):
            raise BackendError(
                f"{self._graph.value} failed on the GPU; TensorRT's messages are in the log"
            )

    def close(self) -> None:
        """Drop the contexts, then the engine; their work must be done."""
        self.contexts.close()
        self._engine = None


_AXES = {
    "B": ("objects at once", "export with a larger --max-objects"),
    "N": ("points", "give fewer points, or a box"),
    "M": ("memories", "lower max_cond_frames"),
    "R": ("stored memories of all objects", "track fewer objects"),
    "P": ("object pointers", "lower max_cond_frames"),
}
"""What each dynamic axis counts, and the remedy if it is out of range."""


_DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "UINT8": "uint8"}


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
