"""The process in which one engine is built: `python -m sam2_edge.export.tensorrt.worker`.

Reads an EngineRequest as JSON from standard input and writes lines of JSON to standard output:
{"step": ...} while it works, then an EngineEntry or {"error": ...}.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
from polygraphy.backend.trt import (
    CreateConfig,
    PostprocessConfig,
    Profile,
    engine_bytes_from_network,
    network_from_onnx_path,
)
from polygraphy.backend.trt import util as polygraphy_trt
from polygraphy.exception import PolygraphyException

from sam2_edge.bundle.manifest import EngineEntry
from sam2_edge.bundle.storage import sha256_of
from sam2_edge.errors import Sam2EdgeError
from sam2_edge.export.tensorrt.builder import EngineRequest
from sam2_edge.runtime.backends.cuda.driver import device_info
from sam2_edge.runtime.backends.tensorrt_variant import import_tensorrt

_ACTIVATION = re.compile(r"Total Activation Memory: (\d+)")
"""What TensorRT logs when it has built an engine, for each GPU that it builds for."""


def main() -> None:
    """Build the requested engine; the exit code is 0 unless the process crashes."""
    answers = _reserve_standard_output()

    def send(**message: object) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    request = EngineRequest.model_validate_json(sys.stdin.read())
    try:
        entry = build(request, lambda step: send(step=step))
    except (Sam2EdgeError, PolygraphyException) as error:
        send(error=str(error))
    else:
        send(**entry.model_dump(mode="json"))


def build(request: EngineRequest, on_progress: Callable[[str], None]) -> EngineEntry:
    """Parse a graph, build its engine and write it, in this process.

    Raises:
        BackendError: TensorRT is missing.
        PolygraphyException: TensorRT refuses the graph.
    """
    trt = import_tensorrt(request.variant)
    activation: list[int] = []
    polygraphy_trt.TRT_LOGGER = _logger(trt, activation.append)
    network = network_from_onnx_path(str(request.graph), strongly_typed=True)
    cache = _timing_cache(trt, request)
    config = _config(trt, request, cache, on_progress)
    engine = engine_bytes_from_network(network, config=config, save_timing_cache=cache)
    request.engine.write_bytes(bytes(engine))
    targets = request.compute_capabilities or (device_info().compute_capability,)
    return EngineEntry(
        variant=request.variant,
        version=trt.__version__,
        compute_capabilities=targets,
        profile=request.profile,
        activation_bytes=max(activation, default=None),
    )


def _logger(trt: ModuleType, on_activation: Callable[[int], None]) -> Any:
    """A logger like Polygraphy's that reports the bytes of activation memory.

    The engine itself can only be asked for them where there is a GPU.
    """
    polygraphy_logger = polygraphy_trt.get_trt_logger()

    class Logger(trt.ILogger):  # type: ignore[misc,name-defined] # a module as a value
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if found := _ACTIVATION.search(message):
                on_activation(int(found[1]))
            polygraphy_logger.log(severity, message)

    return Logger()


def _config(
    trt: ModuleType,
    request: EngineRequest,
    cache: str | None,
    on_progress: Callable[[str], None],
) -> Any:
    profile = Profile()
    for name, (min_shape, opt_shape, max_shape) in request.shapes.items():
        profile.add(name, min_shape, opt_shape, max_shape)
    options: dict[str, Any] = {
        "profiles": [profile],
        "progress_monitor": _monitor(trt, on_progress),
        "load_timing_cache": cache if cache and Path(cache).exists() else None,
    }
    if request.variant == "tensorrt":
        return CreateConfig(**options)
    chosen = list(request.compute_capabilities)
    config = CreateConfigRTX(
        use_gpu=not chosen or None, compute_capabilities=chosen or None, **options
    )
    return PostprocessConfig(config, lambda _builder, _network, made: _disable_tf32(trt, made))


def _disable_tf32(trt: ModuleType, config: Any) -> None:
    """Keep float32 exact, without TF32's 10-bit products, as Polygraphy's CreateConfig does."""
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)


def _timing_cache(trt: ModuleType, request: EngineRequest) -> str | None:
    """File of measured kernel times of this graph; TensorRT-RTX has none."""
    if request.variant == "tensorrt-rtx":
        return None
    identity = [sha256_of(request.graph), trt.__version__, request.profile, str(device_info())]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    request.timing_cache.mkdir(parents=True, exist_ok=True)
    return str(request.timing_cache / f"{request.graph.stem}-{key}.timing")


def _monitor(trt: ModuleType, on_progress: Callable[[str], None]) -> Any:
    """A monitor that reports the innermost phase of the build as text."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc,name-defined] # a module as a value
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, _parent: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            on_progress(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            on_progress(f"{phase_name} {step + 1}/{self._steps.get(phase_name, step + 1)}")
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()


def _reserve_standard_output() -> IO[str]:
    """Standard output for answers only: what a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main()
