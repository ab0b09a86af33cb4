"""Creates execution contexts, and keeps the kernels that TensorRT-RTX compiles for them.

TensorRT-RTX compiles kernels when an engine first runs with new shapes. They are kept in one file
per engine and GPU, in a folder beside the bundle, which is written as soon as there are new ones:
a device that is switched off must not compile them again. TensorRT-RTX itself rejects a file that
does not match.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

from sam2_edge.bundle.storage import atomic_file

CHECKS = 2**6
"""Kernels of new shapes may be compiled in the background: new ones are looked for after runs 1, 2,
4, 8 and so on of some shapes, up to this one."""

_log = logging.getLogger(__name__)


class ContextFactory:
    """Creates the execution contexts of one engine, which use scratch memory of the caller's.

    Args:
        trt: The module of TensorRT or TensorRT-RTX.
        engine: The engine.
        cache_file: Where compiled kernels are kept.

    Attributes:
        compiles: Whether this variant compiles kernels at run time, and captures CUDA graphs
            itself: only TensorRT-RTX does.
    """

    def __init__(self, trt: ModuleType, engine: Any, cache_file: Path) -> None:
        self._engine, self._file = engine, cache_file
        self._settings = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._cache: Any = None
        self._saved = 0
        # TensorRT 10.3 has no configuration; that of newer classic versions has no kernels.
        create = getattr(engine, "create_runtime_config", None)
        runtime_config = create() if create else None
        self.compiles = hasattr(runtime_config, "create_runtime_cache")
        if self.compiles:
            self._settings = self._configure(runtime_config)

    def new(self) -> Any:
        """Create a context; None if the GPU has too little free memory."""
        return self._engine.create_execution_context(self._settings)

    def ran(self, times: int) -> None:
        """Keep new kernels, after some shapes ran for the `times`-th time."""
        if self.compiles and times <= CHECKS and times.bit_count() == 1:
            self.save()

    def save(self) -> None:
        """Write the kernels if there are new ones; a failure only makes the next start slower."""
        if self._cache is None:
            return
        kernels = bytes(self._cache.serialize())
        if len(kernels) == self._saved:
            return
        self._saved = len(kernels)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(self._file) as partial:
                partial.write_bytes(kernels)
        except OSError as error:
            _log.warning("compiled kernels are not cached: %s", error)

    def _configure(self, runtime_config: Any) -> Any:
        runtime_config.set_execution_context_allocation_strategy(self._settings)
        self._cache = runtime_config.create_runtime_cache()
        if self._file.is_file():
            kernels = self._file.read_bytes()
            if self._cache.deserialize(kernels):
                self._saved = len(kernels)
            else:
                _log.info("replacing %s, which does not match this engine", self._file)
        runtime_config.set_runtime_cache(self._cache)
        # Until the kernels for a shape are compiled, it runs slower ones, which must not be
        # captured: only TensorRT-RTX knows when (NVIDIA, "Working with RTX CUDA Graphs").
        runtime_config.cuda_graph_strategy = type(
            runtime_config.cuda_graph_strategy
        ).WHOLE_GRAPH_CAPTURE
        return runtime_config
