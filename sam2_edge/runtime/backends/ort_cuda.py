"""ONNX Runtime on an NVIDIA GPU; tensors between graphs stay in GPU memory."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime as ort

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.errors import BackendError
from sam2_edge.extras import reinstall
from sam2_edge.runtime.backends.base import Tensor
from sam2_edge.runtime.backends.cuda.backend import DeviceBackend, axis_sizes
from sam2_edge.runtime.backends.cuda.memory import DeviceMemory, DeviceTensor
from sam2_edge.runtime.backends.ort_cpu import RUN_ERRORS, check_onnx, check_session

PROVIDER = "CUDAExecutionProvider"

MAX_BINDINGS = 64
"""Bindings kept per graph: the memory encoder writes to 7 slots in turn, and memory attention reads
and writes rows of each object."""

MAX_GRAPHS = 16
"""CUDA graphs per session, which ONNX Runtime keeps as long as the session."""

WARM_RUNS = 2
"""Runs with the same shapes and addresses before a CUDA graph is captured: most never repeat."""

_log = logging.getLogger(__name__)


class OnnxRuntimeCuda(DeviceBackend):
    """Runs a bundle's ONNX graphs with ONNX Runtime's CUDA provider.

    Raises:
        BackendError: If the bundle holds engines, or the provider is missing or does not start
            (ONNX Runtime itself would silently fall back to the CPU).
        BundleError: If a graph does not follow the contract.
    """

    def __init__(self, bundle: Bundle) -> None:
        check_onnx(bundle)
        if PROVIDER not in ort.get_available_providers():
            raise BackendError(
                f"this onnxruntime {ort.__version__} has no {PROVIDER}; install its GPU build: "
                f"{reinstall(['onnxruntime', 'onnxruntime-gpu'], 'sam2_edge[cuda]')}"
            )
        _load_libraries()
        super().__init__(bundle.manifest.geometry)
        self.name = "onnxruntime-cuda"
        self._sessions: dict[Graph, _Session] = {}
        for graph in bundle.manifest.graphs:
            self._sessions[graph] = self._open(bundle, graph)

    def run(
        self,
        graph: Graph,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Run one graph on tensors in GPU memory."""
        self._check_open()
        spec, session = self._specs[graph], self._sessions[graph]
        tensors = cast("Mapping[str, DeviceTensor]", inputs)
        results = self._outputs(spec, axis_sizes(spec, tensors), outputs)
        ins = tuple((i.name, *_placed(tensors[i.name])) for i in spec.inputs)
        outs = tuple((name, *_placed(t)) for name, t in results.items())
        self.commands.submit((graph, ins, outs), lambda _captured: session.run(ins, outs))
        return cast("dict[str, Tensor]", results)

    def _close_engines(self) -> None:
        getattr(self, "_sessions", {}).clear()

    def _open(self, bundle: Bundle, graph: Graph) -> _Session:
        path = bundle.graph_path(graph)
        session = _Session(path, graph.value, self._memory)
        providers = session.session.get_providers()
        if PROVIDER not in providers:
            raise BackendError(
                f"ONNX Runtime's {PROVIDER} did not start (it has {providers}); install the CUDA "
                "and cuDNN versions listed in its release notes"
            )
        check_session(path, self._specs[graph], session.session)
        return session


_Placed = tuple[str, type[np.generic], tuple[int, ...], int]
"""Name, type, shape and address of a tensor."""


class _Session:
    """One graph with its bindings, which are kept by shapes and addresses.

    With `enable_cuda_graph`, what is known from ONNX Runtime's documentation and source (1.17 and
    later), not from a GPU: each run names its CUDA graph by `gpu_graph_id`, -1 for none. The first
    run with a number runs the operators several times, to allocate memory and to capture them;
    later ones replay what was captured, addresses included, whatever is bound. So a number stands
    for one binding for good, and is taken only once a binding repeats. A replay may wait for the
    GPU.
    """

    def __init__(self, path: Path, name: str, memory: DeviceMemory) -> None:
        self._path, self._name, self._memory = path, name, memory
        self._bindings: dict[tuple[tuple[_Placed, ...], ...], _Binding] = {}  # oldest use first
        self._graphs_left = MAX_GRAPHS
        self._plain = _run_options(-1)
        try:
            self.session = _session(path, memory.stream, graphs=True)
        except RUN_ERRORS as error:
            # It refuses graphs with control flow, or with operators or copies on the CPU.
            self._do_without_graphs(logging.INFO, error)

    def run(self, inputs: tuple[_Placed, ...], outputs: tuple[_Placed, ...]) -> None:
        """Enqueue a run.

        Raises:
            BackendError: If it fails.
        """
        key = (inputs, outputs)
        bound = self._bindings.pop(key, None) or _Binding(self.session, inputs, outputs)
        self._bindings[key] = bound
        if len(self._bindings) > MAX_BINDINGS:
            self._forget()
        bound.runs += 1
        if bound.options is None and bound.runs > WARM_RUNS and self._graphs_left:
            self._graphs_left -= 1
            bound.options = _run_options(MAX_GRAPHS - self._graphs_left)
        try:
            self._run(bound)
        except RUN_ERRORS as error:
            if bound.options is None:
                shapes = ", ".join(f"{name} {shape}" for name, _, shape, _ in inputs)
                raise BackendError(f"{self._name} failed on {shapes}: {error}") from error
            self._do_without_graphs(logging.WARNING, error)
            self.run(inputs, outputs)

    def _run(self, bound: _Binding) -> None:
        self.session.run_with_iobinding(bound.binding, bound.options or self._plain)

    def _do_without_graphs(self, level: int, error: Exception) -> None:
        """Reopen the session without CUDA graphs: after a failed capture it may be unusable."""
        _log.log(level, "%s runs without CUDA graphs: %s", self._name, error)
        self._memory.synchronize()
        self._bindings.clear()
        self._graphs_left = 0
        self._plain = _run_options(None)
        try:
            self.session = _session(self._path, self._memory.stream, graphs=False)
        except RUN_ERRORS as refusal:
            raise BackendError(
                f"{self._path} cannot be loaded by ONNX Runtime {ort.__version__} on the GPU: "
                f"{refusal}"
            ) from refusal

    def _forget(self) -> None:
        """Drop the least recently used binding without a CUDA graph."""
        for key, bound in self._bindings.items():
            if bound.options is None:
                del self._bindings[key]
                return


class _Binding:
    """Inputs and outputs bound to a session; `options` of its CUDA graph, None without one."""

    __slots__ = ("binding", "options", "runs")

    def __init__(
        self, session: Any, inputs: tuple[_Placed, ...], outputs: tuple[_Placed, ...]
    ) -> None:
        self.binding = session.io_binding()
        self.options: ort.RunOptions | None = None
        self.runs = 0
        for name, kind, shape, address in inputs:
            self.binding.bind_input(name, "cuda", 0, kind, shape, address)
        for name, kind, shape, address in outputs:
            self.binding.bind_output(name, "cuda", 0, kind, shape, address)


@cache
def _load_libraries() -> None:
    """Load CUDA and cuDNN from NVIDIA's wheels, where pip puts them; once per process.

    Without it the provider finds only those of the system, or of a torch that was imported before.
    """
    preload = getattr(ort, "preload_dlls", None)  # from 1.21 on
    if preload is not None:
        # It prints what it does not find there, although the system's libraries may do.
        with redirect_stdout(io.StringIO()) as printed:
            preload()
        _log.info("%s", printed.getvalue())


def _placed(tensor: DeviceTensor) -> tuple[type[np.generic], tuple[int, ...], int]:
    return tensor.dtype.type, tuple(tensor.shape), tensor.address


def _run_options(cuda_graph: int | None) -> ort.RunOptions:
    options = ort.RunOptions()
    # Otherwise each run waits for the GPU at its end. Downloads wait instead.
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    if cuda_graph is not None:
        options.add_run_config_entry("gpu_graph_id", str(cuda_graph))
    return options


def _session(path: Path, stream: int, *, graphs: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    settings = {
        # Graphs and copies share one stream, which keeps them in order without waits.
        "user_compute_stream": str(stream),
        # The default on newer GPUs has 10-bit mantissas: too inexact for float32 graphs.
        "use_tf32": "0",
        # The default, EXHAUSTIVE, tries all algorithms for every new shape: 634 ms instead of
        # 1.9 ms (PaddlePaddle/PaddleX #5057), and objects come and go.
        "cudnn_conv_algo_search": "HEURISTIC",
        "enable_cuda_graph": "1" if graphs else "0",
    }
    # The fallback would print to standard output and use the CPU.
    return ort.InferenceSession(path, options, providers=[(PROVIDER, settings)], enable_fallback=0)
