"""The process in which one engine is built: `python -m sam2_edge.export.tensorrt.worker`.

Takes an EngineRequest as JSON on its standard input and answers in lines of JSON on its standard
output: {"now": ...} as the work goes on, then an EngineEntry or {"error": ...}.
"""

from __future__ import annotations

import hashlib
import json
import os
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
from polygraphy.exception import PolygraphyException

from sam2_edge.bundle.manifest import EngineEntry
from sam2_edge.bundle.storage import sha256_of
from sam2_edge.errors import Sam2EdgeError
from sam2_edge.export.tensorrt.builder import EngineRequest
from sam2_edge.runtime.backends.cuda.driver import device_info
from sam2_edge.runtime.backends.tensorrt_variant import import_tensorrt


def main() -> None:
    """Build what is asked for; exit code 0 unless the process crashes."""
    answers = _keep_standard_output()

    def say(**message: object) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    request = EngineRequest.model_validate_json(sys.stdin.read())
    try:
        entry = build(request, lambda now: say(now=now))
    except (Sam2EdgeError, PolygraphyException) as error:
        say(error=str(error))
    else:
        say(**entry.model_dump(mode="json"))


def build(request: EngineRequest, watch: Callable[[str], None]) -> EngineEntry:
    """Parse, build and write one engine in this process.

    Raises BackendError without TensorRT, PolygraphyException when it refuses.
    """
    trt = import_tensorrt(request.variant)
    network = network_from_onnx_path(str(request.graph), strongly_typed=True)
    config = _config(trt, request, watch)
    cache = _timing_cache(trt, request)
    engine = engine_bytes_from_network(network, config=config, save_timing_cache=cache)
    request.engine.write_bytes(bytes(engine))
    targets = request.compute_capabilities or (device_info().compute_capability,)
    return EngineEntry(
        variant=request.variant,
        version=trt.__version__,
        compute_capabilities=targets,
        profile=request.profile,
    )


def _config(trt: ModuleType, request: EngineRequest, watch: Callable[[str], None]) -> Any:
    profile = Profile()
    for name, (least, usual, largest) in request.shapes.items():
        profile.add(name, least, usual, largest)
    cache = _timing_cache(trt, request)
    options: dict[str, Any] = {
        "profiles": [profile],
        "progress_monitor": _monitor(trt, watch),
        "load_timing_cache": cache if cache and Path(cache).exists() else None,
    }
    if request.variant == "tensorrt":
        return CreateConfig(**options)
    chosen = list(request.compute_capabilities)
    config = CreateConfigRTX(
        use_gpu=not chosen or None, compute_capabilities=chosen or None, **options
    )
    return PostprocessConfig(config, lambda _builder, _network, made: _float32_is_exact(trt, made))


def _float32_is_exact(trt: ModuleType, config: Any) -> None:
    """As Polygraphy's own CreateConfig does: no 10-bit products where the graph says float32."""
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)


def _timing_cache(trt: ModuleType, request: EngineRequest) -> str | None:
    """File of kernel times measured for this very graph; None where the variant measures none."""
    if request.variant == "tensorrt-rtx":
        return None
    about = [sha256_of(request.graph), trt.__version__, request.profile, str(device_info())]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    request.cache.mkdir(parents=True, exist_ok=True)
    return str(request.cache / f"{request.graph.stem}-{key}.timing")


def _monitor(trt: ModuleType, watch: Callable[[str], None]) -> Any:
    """Progress of the build as text; phases nest, the innermost is told."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc,name-defined] # a module as a value
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, _parent: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            watch(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            watch(f"{phase_name} {step + 1}/{self._steps.get(phase_name, step + 1)}")
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()


def _keep_standard_output() -> IO[str]:
    """The standard output for answers alone: whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main()
