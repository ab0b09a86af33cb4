"""A stand-in for ONNX Runtime's CUDA provider on the late device.

It waits at the end of a run unless told not to, and with `enable_cuda_graph` it replays the
addresses of the first run of a `gpu_graph_id`, whatever is bound, as the real provider does.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from tests.helpers.late_device import LateDevice
from tests.helpers.late_device.sessions import Placed, RawSession

PROVIDER = "CUDAExecutionProvider"


class Binding:
    def __init__(self) -> None:
        self.tensors: dict[str, Placed] = {}

    def bind_input(
        self, name: str, kind: str, number: int, dtype: Any, shape: tuple[int, ...], address: int
    ) -> None:
        assert (kind, number) == ("cuda", 0)
        assert isinstance(np.dtype(dtype), np.dtype)
        self.tensors[name] = (address, tuple(shape))

    bind_output = bind_input


class CudaProvider:
    """Replaces `onnxruntime.InferenceSession` for sessions with the CUDA provider.

    Attributes:
        settings: The provider options of each session, in order.
        refuses_graphs: Whether sessions with `enable_cuda_graph` fail to open.
        fails_to_capture: Whether a first run with a `gpu_graph_id` fails.
        starts: Whether the provider starts at all; otherwise sessions run on the CPU, as the real
            one does silently.
    """

    def __init__(self, device: LateDevice) -> None:
        self.device = device
        self.settings: list[dict[str, str]] = []
        self.refuses_graphs = self.fails_to_capture = False
        self.starts = True
        self.bindings = 0
        self._captured: Counter[str] = Counter()

    def captured(self, graph: str) -> int:
        """Number of CUDA graphs of all sessions of a graph."""
        return self._captured[graph]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        providers = [PROVIDER, "CPUExecutionProvider"]
        monkeypatch.setattr(ort, "get_available_providers", lambda: providers)
        real = ort.InferenceSession

        def session(path: Path, options: ort.SessionOptions, **keywords: Any) -> Any:
            provider = keywords["providers"][0]
            if provider == "CPUExecutionProvider":  # what the late device itself runs on
                return real(path, options, **keywords)
            return Session(self, Path(path), provider[1])

        monkeypatch.setattr(ort, "InferenceSession", session)


class Session:
    def __init__(self, provider: CudaProvider, path: Path, settings: dict[str, str]) -> None:
        self._graphs = settings.get("enable_cuda_graph") == "1"
        if self._graphs and provider.refuses_graphs:
            raise RuntimeError("this session cannot use the graph capture feature")
        provider.settings.append(settings)
        self._provider, self._device = provider, provider.device
        self._stream = int(settings["user_compute_stream"])
        self._raw, self._name = RawSession(path.read_bytes()), path.stem
        self._captured: dict[str, dict[str, Placed]] = {}

    def get_providers(self) -> list[str]:
        return [PROVIDER] if self._provider.starts else ["CPUExecutionProvider"]

    def get_inputs(self) -> Any:
        return self._raw.session.get_inputs()

    def get_outputs(self) -> Any:
        return self._raw.session.get_outputs()

    def io_binding(self) -> Binding:
        self._provider.bindings += 1
        return Binding()

    def run_with_iobinding(self, binding: Binding, options: ort.RunOptions | None = None) -> None:
        number = "-1" if options is None else _entry(options, "gpu_graph_id", "0")
        tensors = dict(binding.tensors)
        if self._graphs and number != "-1":
            if number not in self._captured and self._provider.fails_to_capture:
                raise RuntimeError("operation not permitted when stream is capturing")
            if number not in self._captured:
                self._captured[number] = tensors
                self._provider._captured[self._name] += 1
            tensors = self._captured[number]
        if not self._device.enqueue(self._stream, lambda: self._raw.run(self._device, tensors)):
            raise RuntimeError("the stream takes no work")
        quiet = options and _entry(options, "disable_synchronize_execution_providers", "0")
        if quiet != "1":
            self._device.synchronize(self._stream)


def _entry(options: ort.RunOptions, key: str, default: str) -> str:
    try:
        return str(options.get_run_config_entry(key))
    except RuntimeError:
        return default
