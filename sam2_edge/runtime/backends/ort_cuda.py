"""ONNX Runtime on an NVIDIA GPU; tensors between graphs stay in GPU memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import onnxruntime as ort

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.errors import BackendError
from sam2_edge.runtime.backends.base import Tensor
from sam2_edge.runtime.backends.cuda.backend import DeviceBackend, axis_sizes
from sam2_edge.runtime.backends.cuda.memory import DeviceTensor
from sam2_edge.runtime.backends.ort_cpu import RUN_ERRORS, check_onnx, check_session

PROVIDER = "CUDAExecutionProvider"


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
                "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
            )
        super().__init__(bundle.manifest.geometry)
        self.name = "onnxruntime-cuda"
        self._sessions = {graph: self._open(bundle, graph) for graph in Graph}

    def run(self, graph: Graph, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one graph on tensors in GPU memory."""
        spec, session = self._specs[graph], self._sessions[graph]
        tensors = cast("Mapping[str, DeviceTensor]", inputs)
        outputs = self._outputs(spec, axis_sizes(spec, tensors))
        binding = session.io_binding()
        for name, t in tensors.items():
            binding.bind_input(name, "cuda", 0, t.dtype.type, t.shape, t.address)
        for name, t in outputs.items():
            binding.bind_output(name, "cuda", 0, t.dtype.type, t.shape, t.address)
        try:
            session.run_with_iobinding(binding)
        except RUN_ERRORS as error:
            shapes = ", ".join(f"{name} {t.shape}" for name, t in tensors.items())
            raise BackendError(f"{graph.value} failed on {shapes}: {error}") from error
        return cast("dict[str, Tensor]", outputs)

    def _open(self, bundle: Bundle, graph: Graph) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Graphs and copies share one stream, which keeps them in order without synchronization.
        # TF32, the default on newer GPUs, has 10-bit mantissas: too inexact for float32 graphs.
        settings = {"user_compute_stream": str(self._memory.stream), "use_tf32": "0"}
        path = bundle.graph_path(graph)
        try:
            # The fallback would print to standard output and use the CPU.
            session = ort.InferenceSession(
                path, options, providers=[(PROVIDER, settings)], enable_fallback=0
            )
        except RUN_ERRORS as error:
            raise BackendError(
                f"{path} cannot be loaded by ONNX Runtime {ort.__version__} on the GPU: {error}"
            ) from error
        if PROVIDER not in session.get_providers():
            raise BackendError(
                f"ONNX Runtime's {PROVIDER} did not start (it has {session.get_providers()}); "
                "install the CUDA and cuDNN versions listed in its release notes"
            )
        check_session(path, self._specs[graph], session)
        return session
