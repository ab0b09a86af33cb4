"""ONNX Runtime on the CPU: the backend that works anywhere. Tensors are numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import cast

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.errors import BackendError
from sam2_edge.runtime.backends.base import Tensor
from sam2_edge.runtime.backends.host import HostTensors

RUN_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    *(x for x in vars(state).values() if isinstance(x, type) and issubclass(x, Exception)),
)
"""ONNX Runtime's own exceptions have no base of their own: each is listed."""


class OnnxRuntimeCpu(HostTensors):
    """Runs a bundle's graphs with ONNX Runtime's CPU provider.

    threads: threads within an operator; None leaves the choice to ONNX Runtime (all cores).

    Raises BackendError when a graph cannot be opened.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise BackendError(f"threads is {threads}; give 1 or more")
        check_onnx(bundle)
        self.name = "onnxruntime-cpu"
        self._sessions = {graph: _open(bundle, graph, threads) for graph in Graph}
        self._outputs = {
            graph: [output.name for output in session.get_outputs()]
            for graph, session in self._sessions.items()
        }

    def run(self, graph: Graph, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one graph on numpy arrays; see `Backend.run`."""
        try:
            results = self._sessions[graph].run(None, dict(inputs))
        except RUN_ERRORS as error:
            shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in inputs.items())
            raise BackendError(f"{graph.value} failed on {shapes}: {error}") from error
        return cast("dict[str, Tensor]", dict(zip(self._outputs[graph], results, strict=True)))


def check_onnx(bundle: Bundle) -> None:
    """Raise BackendError unless the graphs of a bundle are ONNX graphs."""
    variants = {e.engine.variant for e in bundle.manifest.graphs.values() if e.engine}
    if variants:
        raise BackendError(
            f"{bundle.path} holds engines of {', '.join(variants)}, which ONNX Runtime cannot run; "
            "export with --target onnx, or leave the choice of a backend to auto"
        )


@cache
def _share_arena() -> None:
    """Lay one arena out for all sessions of the process that ask for it.

    The graphs of a frame run one after the other: with an arena each, as much memory as all of them
    need stays taken (for SAM 2.1 tiny at 1024 pixels 0.3 to 0.45 GB more); with one, what the
    largest needs. It stays with the process when a tracker goes, for the next one.
    """
    kind, use = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, ort.OrtMemType.DEFAULT
    where = ort.OrtMemoryInfo("Cpu", kind, 0, use)
    # 0: no limit, and growth by doubling, ONNX Runtime's own choice; -1: its defaults.
    ort.create_and_register_allocator(where, ort.OrtArenaCfg(0, 0, -1, -1))


def _open(bundle: Bundle, graph: Graph, threads: int | None) -> ort.InferenceSession:
    _share_arena()
    options = ort.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.log_severity_level = 3  # errors only: warnings would go to the user's terminal
    # While the bank fills, each frame has new shapes: patterns would be kept for every one of them.
    options.enable_mem_pattern = False
    # Every session has its own threads, which spin for a while after a run and would take
    # the cores from the next graph of the same frame (docs/architecture.md).
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Attention of a trained model is peaked: most of its weights are denormal numbers, with which
    # a CPU computes several times slower (docs/verified.md).
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    path = bundle.graph_path(graph)
    try:
        return ort.InferenceSession(
            path,
            options,
            providers=["CPUExecutionProvider"],
            # It puts a product and its bias into one operator, which takes longer than the two
            # (the image encoder by a twentieth).
            disabled_optimizers=["MatMulAddFusion"],
        )
    except RUN_ERRORS as error:
        raise BackendError(
            f"{path} cannot be opened by ONNX Runtime {ort.__version__}: {error}; export the "
            "bundle again or update onnxruntime"
        ) from error
