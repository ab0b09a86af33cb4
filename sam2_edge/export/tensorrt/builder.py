"""One ONNX graph to one TensorRT engine, built in a process of its own.

A parser or builder that crashes takes only that process with it; its last lines are in the error.
The work itself is in `engine_worker.py`.
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

from sam2_edge.bundle.contract import Geometry, GraphSpec, TensorSpec
from sam2_edge.bundle.manifest import EngineEntry, Profile
from sam2_edge.errors import ExportError
from sam2_edge.runtime.backends.tensorrt_variant import TensorRtVariant

WORKER = "sam2_edge.export.tensorrt.worker"

SELECT_RTX = "POLYGRAPHY_USE_TENSORRT_RTX"
"""Environment variable by which Polygraphy takes TensorRT-RTX; read when it is imported."""

_LAST_LINES = 8

Watch = Callable[[str], None]
"""Called with what the builder does now, such as "Tactic Timing 3/20"."""


class EngineRequest(BaseModel):
    """What a worker is to build.

    compute_capabilities: (major, minor) of the GPUs to build for; empty for the one in this
    machine. shapes: least, usual and largest shape of every input. cache: folder for timings.
    """

    model_config = ConfigDict(frozen=True)

    graph: Path
    engine: Path
    variant: TensorRtVariant
    compute_capabilities: tuple[tuple[int, int], ...]
    profile: Profile
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
    cache: Path


def engine_profile(geometry: Geometry, *, objects: int, points: int, conditioning: int) -> Profile:
    """Least, usual and largest size of every dynamic axis: at most so many objects together, points
    of one object on a frame, and prompted frames kept per object.
    """
    return {
        "M": (1, geometry.memory_slots, geometry.recent_memories + conditioning),
        "P": (1, geometry.pointers, geometry.recent_pointers + conditioning),
        "B": (1, 1, objects),
        "N": (1, 1, points),
    }


def engine_shapes(
    spec: GraphSpec, profile: Profile
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Least, usual and largest shape of every input of a graph."""

    def shape(tensor: TensorSpec, which: int) -> tuple[int, ...]:
        return tensor.shape(**{axis: sizes[which] for axis, sizes in profile.items()})

    return {t.name: (shape(t, 0), shape(t, 1), shape(t, 2)) for t in spec.inputs}


def build_engine(request: EngineRequest, watch: Watch) -> EngineEntry:
    """Build an engine and say what it is for.

    Raises ExportError when the graph is refused, nothing was built, or the builder crashed.
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
            answer = _follow(worker.stdout, watch)
        if worker.returncode == 0 and answer is not None and "error" not in answer:
            return EngineEntry.model_validate(answer)
        raise ExportError(_failure(request, worker.returncode, answer, _last_lines(log)))


def _follow(lines: IO[str], watch: Watch) -> dict[str, object] | None:
    """Hand on progress until the worker ends; its answer, if it gave one."""
    answer = None
    for line in lines:
        try:
            message = json.loads(line)
        except ValueError:
            continue  # a library that prints
        if "now" in message:
            watch(message["now"])
        else:
            answer = message
    return answer


def _last_lines(log: IO[str]) -> str:
    log.seek(0)
    return "\n".join(log.read().splitlines()[-_LAST_LINES:])


def _failure(request: EngineRequest, code: int, answer: dict[str, object] | None, last: str) -> str:
    name = f"{request.variant} engine of {request.graph.name}"
    if answer is not None:
        how = str(answer["error"])
    else:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        how = f"the builder {how}; try another precision, or --target onnx"
    return f"the {name} was not built: {how}. Its last lines:\n{last}"
