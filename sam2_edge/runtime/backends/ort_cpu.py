"""ONNX Runtime on the CPU, the backend that runs everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import cast

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import Graph, GraphSpec, TensorSpec, graph_specs
from sam2_edge.errors import BackendError
from sam2_edge.runtime.backends.base import Tensor
from sam2_edge.runtime.backends.host import HostTensors
from sam2_edge.runtime.backends.signature import DYNAMIC, check_signature

RUN_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    *(x for x in vars(state).values() if isinstance(x, type) and issubclass(x, Exception)),
)
"""All exceptions of ONNX Runtime, which share no base class."""


class OnnxRuntimeCpu(HostTensors):
    """Runs a bundle's graphs with ONNX Runtime's CPU provider.

    Args:
        bundle: Bundle of ONNX graphs.
        threads: Threads per operator; None for all cores, ONNX Runtime's default.

    Raises:
        BackendError: If the bundle holds engines or a graph cannot be loaded.
        BundleError: If a graph does not follow the contract.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise BackendError(f"threads is {threads}; give 1 or more")
        check_onnx(bundle)
        self.name = "onnxruntime-cpu"
        specs = graph_specs(bundle.manifest.geometry)
        self._sessions = {graph: _open(bundle, graph, threads) for graph in Graph}
        for graph, session in self._sessions.items():
            check_session(bundle.graph_path(graph), specs[graph], session)
        self._outputs = {
            graph: [output.name for output in session.get_outputs()]
            for graph, session in self._sessions.items()
        }

    def run(
        self,
        graph: Graph,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Run one graph on numpy arrays."""
        try:
            results = self._sessions[graph].run(None, dict(inputs))
        except RUN_ERRORS as error:
            shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in inputs.items())
            raise BackendError(f"{graph.value} failed on {shapes}: {error}") from error
        made = cast("dict[str, Tensor]", dict(zip(self._outputs[graph], results, strict=True)))
        for name, target in (outputs or {}).items():
            self.copy(made[name], target)
        return {**made, **(outputs or {})}


def check_onnx(bundle: Bundle) -> None:
    """Raise BackendError if a bundle holds engines rather than ONNX graphs."""
    variants = {e.engine.variant for e in bundle.manifest.graphs.values() if e.engine}
    if variants:
        raise BackendError(
            f"{bundle.path} holds engines of {', '.join(variants)}, which ONNX Runtime cannot run; "
            "export with --target onnx, or choose the backend auto"
        )


_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
}


def check_session(path: Path, spec: GraphSpec, session: ort.InferenceSession) -> None:
    """Raise BundleError unless a loaded graph follows its contract."""
    inputs, outputs = (
        [
            TensorSpec(
                node.name,
                _DTYPES.get(node.type, node.type),
                tuple(axis if isinstance(axis, int) else DYNAMIC for axis in node.shape),
            )
            for node in nodes
        ]
        for nodes in (session.get_inputs(), session.get_outputs())
    )
    check_signature(path, spec, inputs, outputs)


@cache
def _share_arena() -> None:
    """Create one memory arena for all sessions of the process.

    Graphs run one at a time, so a shared arena is only as large as the largest graph requires;
    separate arenas take 0.3 to 0.45 GB more for SAM 2.1 tiny at 1024 pixels. The arena outlives a
    tracker and is reused by the next one.
    """
    kind, use = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, ort.OrtMemType.DEFAULT
    memory = ort.OrtMemoryInfo("Cpu", kind, 0, use)
    # 0: no limit, and growth by doubling (ONNX Runtime's default); -1: its other defaults.
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg(0, 0, -1, -1))


def _open(bundle: Bundle, graph: Graph, threads: int | None) -> ort.InferenceSession:
    _share_arena()
    options = ort.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.log_severity_level = 3  # errors only: warnings would go to the user's terminal
    # While the bank fills, every frame has new shapes, and a pattern would be cached for each.
    options.enable_mem_pattern = False
    # Each session has its own threads. Spinning after a run, they would take the cores from the
    # next graph of the same frame (docs/measurements.md).
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Attention in a trained model is peaked: most of its weights are denormals, which slow a CPU
    # down several times.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    path = bundle.graph_path(graph)
    try:
        return ort.InferenceSession(
            path,
            options,
            providers=["CPUExecutionProvider"],
            # Fusing a product with its bias is slower (5 % of the image encoder).
            disabled_optimizers=["MatMulAddFusion"],
            enable_fallback=0,  # it would print to standard output and try the same again
        )
    except RUN_ERRORS as error:
        raise BackendError(
            f"{path} cannot be loaded by ONNX Runtime {ort.__version__}: {error}; export the "
            "bundle again or update onnxruntime"
        ) from error
