"""Stand-ins for the modules `tensorrt` and `tensorrt_rtx` on the late device.

Engines are ONNX files. They follow the rules that are easy to break: contexts need enough memory of
the caller's for the shapes in use, which holds garbage before each run; a graph holds the addresses
of its capture and is outdated once its context changes; a capture needs a run before it; contexts
go before their stream.
"""

from __future__ import annotations

import math
import sys
import weakref
from enum import Enum
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.helpers.engines import VERSION
from tests.helpers.late_device import LateDevice
from tests.helpers.late_device.sessions import Placed, RawSession, view

ALIGNMENT = 256
"""Of tensors and of scratch memory (NvInferRuntime.h)."""


class ExecutionContextAllocationStrategy(Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class CudaGraphStrategy(Enum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class TensorIOMode(Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class DataType(Enum):
    FLOAT = 0
    HALF = 1
    INT32 = 3
    UINT8 = 5


_KINDS = {
    "float32": DataType.FLOAT,
    "float16": DataType.HALF,
    "int32": DataType.INT32,
    "uint8": DataType.UINT8,
}


class ILogger:
    class Severity(Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    INTERNAL_ERROR = Severity.INTERNAL_ERROR
    ERROR = Severity.ERROR
    WARNING = Severity.WARNING
    INFO = Severity.INFO
    VERBOSE = Severity.VERBOSE

    def log(self, severity: Any, message: str) -> None:
        raise NotImplementedError


class IRuntimeCache:
    """Kernels that have been compiled: one entry per engine and shapes."""

    def __init__(self) -> None:
        self.kernels: set[str] = set()

    def serialize(self) -> bytes:
        return "\n".join(sorted(self.kernels)).encode()

    def deserialize(self, content: bytes) -> bool:
        self.kernels = set(content.decode().splitlines())
        return True


class IRuntimeConfig:
    def __init__(self, *, rtx: bool) -> None:
        self.strategy = ExecutionContextAllocationStrategy.STATIC
        self.cache: IRuntimeCache | None = None
        if rtx:
            self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
            self.create_runtime_cache = IRuntimeCache
            self.set_runtime_cache = self._set_runtime_cache

    def set_execution_context_allocation_strategy(
        self, strategy: ExecutionContextAllocationStrategy
    ) -> None:
        self.strategy = strategy

    def _set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self.cache = cache
        return True


class Runtime:
    def __init__(self, module: Module, logger: ILogger) -> None:
        self.module, self.logger = module, logger
        self.device, self.rtx = module.device, module.rtx
        module.loggers.append(logger)

    def deserialize_cuda_engine(self, content: bytes) -> ICudaEngine | None:
        try:
            return ICudaEngine(self, RawSession(content))
        except Exception as error:  # noqa: BLE001 # the real one logs and returns None
            self.logger.log(ILogger.ERROR, str(error))
            return None


class ICudaEngine:
    def __init__(self, runtime: Runtime, session: RawSession) -> None:
        self.runtime, self.session = runtime, session
        runtime.module.engines.add(self)
        self._names = list(session.dtypes)
        if runtime.rtx:
            self.create_runtime_config = lambda: IRuntimeConfig(rtx=True)

    @property
    def num_io_tensors(self) -> int:
        return len(self._names)

    @property
    def device_memory_size_v2(self) -> int:
        return 1 << 30  # of the largest shapes: nobody should ask for it

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_dtype(self, name: str) -> DataType:
        return _KINDS[self.session.dtypes[name].name]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.session.axes[name]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.session.inputs else TensorIOMode.OUTPUT

    def create_execution_context(
        self, how: ExecutionContextAllocationStrategy | IRuntimeConfig | None = None
    ) -> IExecutionContext | None:
        config = how if isinstance(how, IRuntimeConfig) else IRuntimeConfig(rtx=self.runtime.rtx)
        if isinstance(how, ExecutionContextAllocationStrategy):
            config.strategy = how
        if config.strategy is not ExecutionContextAllocationStrategy.USER_MANAGED:
            free = self.runtime.device.settings.memory_bytes
            free -= self.runtime.device.counts.device_bytes
            if self.device_memory_size_v2 > free:
                self.runtime.logger.log(ILogger.ERROR, "too little memory for a context")
                return None
        return IExecutionContext(self, config)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine, config: IRuntimeConfig) -> None:
        self.engine, self._config = engine, config
        self._device = engine.runtime.device
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)
        self._version = 0
        self._warm = False  # it has run since its shapes changed
        self._parted = False  # its memory has been divided since its shapes changed
        engine.runtime.module.contexts.add(self)
        self._streams: set[int] = set()
        weakref.finalize(self, _check_streams, self._device, self._streams).atexit = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        axes = self.engine.session.axes.get(name)
        fits = axes is not None and len(axes) == len(shape)
        if not fits or any(a not in (-1, n) for a, n in zip(axes or (), shape, strict=True)):
            return self._refuse(f"{name} cannot have the shape {shape}")
        if self._shapes.get(name) != tuple(shape):
            self._shapes[name] = tuple(shape)
            self._version += 1
            self._warm = self._parted = False
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes.get(name, self.engine.session.axes[name])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self.engine.session.dtypes:
            return self._refuse(f"there is no tensor {name}")
        if memory % ALIGNMENT:
            self._device.misuse(f"{name} is not aligned")
        if self._addresses.get(name) != memory:
            self._addresses[name] = memory
            self._version += 1
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        if self._shapes.keys() != self.engine.session.inputs:
            self._refuse("the size of memory is asked for before all shapes are set")
            return 0
        self._parted, self._scratch = True, (0, 0)
        return self._needed()

    def set_device_memory(self, memory: int, size: int) -> None:
        if memory % ALIGNMENT:
            self._device.misuse("scratch memory is not aligned")
        if self._scratch != (memory, size):
            self._scratch = (memory, size)
            self._version += 1

    def execute_async_v3(self, stream_handle: int) -> bool:
        session, strategy = self.engine.session, self._config.strategy
        if self._shapes.keys() != session.inputs or self._addresses.keys() != session.dtypes.keys():
            return self._refuse("shapes or addresses are missing")
        managed = strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        if managed and not self._parted:
            return self._refuse("memory is not divided for these shapes")
        if managed and self._scratch[1] < self._needed():
            return self._refuse(f"{self._scratch[1]} bytes of memory, {self._needed()} needed")
        if self._device.is_capturing(stream_handle) and not self._may_be_captured():
            return False
        self._streams.add(stream_handle)
        self._warm = True
        run = _Run(self, captured=self._device.is_capturing(stream_handle))
        if self._config.cache is not None:
            self._config.cache.kernels.add(f"{sorted(self._shapes.items())}")
        return self._device.enqueue(stream_handle, run)

    def _may_be_captured(self) -> bool:
        if self.engine.runtime.rtx:
            self._device.misuse("TensorRT-RTX, which captures graphs itself, is captured")
            return False
        if not self._warm:
            self._device.misuse("a context is captured that has not run with these shapes")
            return False
        return True

    def _needed(self) -> int:
        """Bytes of memory for these shapes, which grow with every axis."""
        session = self.engine.session
        size = sum(math.prod(self._shapes[name]) for name in session.inputs) * 4
        return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT

    def _refuse(self, why: str) -> bool:
        self.engine.runtime.logger.log(ILogger.ERROR, why)
        return False


def _check_streams(device: LateDevice, streams: set[int]) -> None:
    if not all(map(device.stream_exists, streams)):
        device.misuse("a stream is destroyed before the contexts that used it")


class _Run:
    """One run with the shapes and addresses of the moment when it was queued or captured."""

    def __init__(self, context: IExecutionContext, *, captured: bool) -> None:
        self._context = weakref.ref(context)
        self._captured, self._version = captured, context._version
        self._device, self._session = context._device, context.engine.session
        self._needed, self._scratch = context._needed(), context._scratch
        managed = context._config.strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        self._managed = managed
        self._tensors: dict[str, Placed] = {
            name: (address, context._shapes.get(name))
            for name, address in context._addresses.items()
        }

    def __call__(self) -> None:
        context = self._context()
        if context is None:
            raise AssertionError("a context is destroyed before its run is done")
        if self._captured and context._version != self._version:
            raise AssertionError("a graph is outdated: its context has changed since the capture")
        if self._managed and self._needed:
            self._poison_scratch()
        self._session.run(self._device, self._tensors)

    def _poison_scratch(self) -> None:
        address, size = self._scratch[0], self._needed
        if not self._device.is_in_use(address, size):
            raise AssertionError("scratch memory is not in use")
        view(address, (size,), np.uint8)[...] = 0xFF


class Module(ModuleType):
    """Takes the place of `tensorrt` or, with `rtx`, of `tensorrt_rtx`.

    Attributes:
        engines: All engines that exist.
        contexts: All execution contexts that exist.
        loggers: The logger of every runtime that has been made.
    """

    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    CudaGraphStrategy = CudaGraphStrategy
    TensorIOMode = TensorIOMode
    DataType = DataType
    ILogger = ILogger

    def __init__(self, device: LateDevice, *, rtx: bool) -> None:
        super().__init__("tensorrt_rtx" if rtx else "tensorrt")
        self.__version__ = VERSION
        self.device, self.rtx = device, rtx
        self.engines: weakref.WeakSet[ICudaEngine] = weakref.WeakSet()
        self.contexts: weakref.WeakSet[IExecutionContext] = weakref.WeakSet()
        self.loggers: list[ILogger] = []
        self.Runtime = partial(Runtime, self)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the place of the real module for the rest of a test."""
        monkeypatch.setitem(sys.modules, self.__name__, self)
