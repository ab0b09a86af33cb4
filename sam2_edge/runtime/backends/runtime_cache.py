"""Caches the kernels that TensorRT-RTX compiles when an engine first runs.

There is one cache file per engine and GPU, in a folder beside the bundle. It is written when the
backend is released, at the latest when the process exits. TensorRT-RTX itself rejects a cache that
does not match.
"""

from __future__ import annotations

import logging
import weakref
from pathlib import Path
from typing import Any

from sam2_edge.bundle.storage import atomic_file

_log = logging.getLogger(__name__)


def new_context(engine: Any, cache_file: Path) -> Any:
    """Create an execution context, with a kernel cache if the variant supports one.

    Returns:
        The context; None if the GPU has too little free memory.
    """
    if not hasattr(engine, "create_runtime_config"):
        return engine.create_execution_context()
    settings = engine.create_runtime_config()
    if not hasattr(settings, "create_runtime_cache"):  # newer classic TensorRT
        return engine.create_execution_context()
    cache = settings.create_runtime_cache()
    if cache_file.is_file() and not cache.deserialize(cache_file.read_bytes()):
        _log.info("replacing %s, which does not match this engine", cache_file)
    settings.set_runtime_cache(cache)
    # TensorRT-RTX captures CUDA graphs itself. Until the kernels for a shape are compiled, it runs
    # slower ones, which must not be captured (NVIDIA, "Working with RTX CUDA Graphs").
    strategies = type(settings.cuda_graph_strategy)
    settings.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE
    context = engine.create_execution_context(settings)
    if context is not None:
        weakref.finalize(context, _save, cache, cache_file)
    return context


def _save(cache: Any, file: Path) -> None:
    """Write the cache; a failure is logged, since it only makes the next start slower."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as partial:
            partial.write_bytes(bytes(cache.serialize()))
    except OSError as error:
        _log.warning("compiled kernels are not cached: %s", error)
