"""One ONNX graph to one TensorRT engine, built by `worker.py` in a process of its own.

A parser or builder that crashes takes only that process with it; its last lines are in the error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict

from sam2_edge.bundle.manifest import EngineEntry, Profile
from sam2_edge.errors import ExportError
from sam2_edge.runtime.backends.tensorrt_variant import TensorRtVariant

WORKER = "sam2_edge.export.tensorrt.worker"

SELECT_RTX = "POLYGRAPHY_USE_TENSORRT_RTX"
"""Environment variable that makes Polygraphy use TensorRT-RTX; read when it is imported."""

_LAST_LINES = 8

ShapeRange = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Min, opt and max shape of one input."""


class EngineRequest(BaseModel):
    """What a worker builds.

    Attributes:
        compute_capabilities: (major, minor) of the GPUs to build for; empty for that of this
            machine.
        shapes: By input.
        timing_cache: Folder for measured kernel times.
    """

    model_config = ConfigDict(frozen=True)

    graph: Path
    engine: Path
    variant: TensorRtVariant
    compute_capabilities: tuple[tuple[int, int], ...]
    profile: Profile
    shapes: dict[str, ShapeRange]
    timing_cache: Path


def build_engine(request: EngineRequest, on_progress: Callable[[str], None]) -> EngineEntry:
    """Build an engine and return its manifest entry.

    Args:
        request: What to build.
        on_progress: Called with the builder's current step, such as "Tactic Timing 3/20".

    Raises:
        ExportError: The graph was refused, nothing was built, or the builder crashed.
    """
    environment = dict(os.environ, **{SELECT_RTX: str(int(request.variant == "tensorrt-rtx"))})
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        worker = subprocess.Popen(  # noqa: S603 # our own module, by this very interpreter
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        with worker:
            worker.stdin.write(request.model_dump_json())
            worker.stdin.close()
            answer = _read_answer(worker.stdout, on_progress)
        if worker.returncode == 0 and answer is not None and "error" not in answer:
            return EngineEntry.model_validate(answer)
        log.seek(0)
        last = "\n".join(log.read().splitlines()[-_LAST_LINES:])
        raise ExportError(
            f"the {request.variant} engine of {request.graph.name} was not built: "
            f"{_cause(worker.returncode, answer)}. Its last lines:\n{last}"
        )


def _read_answer(lines: IO[str], on_progress: Callable[[str], None]) -> dict[str, object] | None:
    """Report progress until the worker ends; returns its answer, if it gave one."""
    answer = None
    for line in lines:
        try:
            message = json.loads(line)
        except ValueError:
            continue  # printed by a library
        if "step" in message:
            on_progress(message["step"])
        else:
            answer = message
    return answer


def _cause(exit_code: int, answer: dict[str, object] | None) -> str:
    if answer is not None:
        return str(answer["error"])
    how = f"was ended by signal {-exit_code}" if exit_code < 0 else f"ended with code {exit_code}"
    return f"the builder {how}; try another precision, or run the ONNX graphs"
