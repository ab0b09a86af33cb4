"""Execution contexts of TensorRT, and the scratch memory that all of them share.

All engines of a bundle run one after the other on one stream, so that they need no scratch memory
of their own: a single block, as large as the largest run in use needs, serves them all.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sam2_edge.errors import BackendError
from sam2_edge.runtime.backends.cuda.memory import DeviceMemory
from sam2_edge.runtime.backends.runtime_cache import ContextFactory

MAX_OWN_CONTEXTS = 16
"""Contexts with fixed shapes and addresses per engine of TensorRT-RTX. The memory encoder writes to
7 slots in turn, and memory attention reads and writes rows of each object."""

PATIENCE = 4 * MAX_OWN_CONTEXTS
"""Runs of an engine without use after which such a context gives way to another one."""

MAX_KNOWN = 256
"""Shapes and addresses per engine that are remembered."""


Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Shape of each input, by name."""


@dataclass(frozen=True, slots=True)
class EngineRun:
    """What a run of an engine depends on; equal ones are the same work.

    It does not hold the tensors, so that their memory is free for later work on the stream.

    Attributes:
        engine: Name of the engine.
        shapes: Shape of each input.
        addresses: Address of each input and output, by name.
    """

    engine: str
    shapes: Shapes
    addresses: tuple[tuple[str, int], ...]


class Scratch:
    """The scratch memory of all contexts on one stream.

    Attributes:
        address: Where it is; 0 before its first use.
        size: Its size in bytes.
    """

    def __init__(self, memory: DeviceMemory) -> None:
        self._memory = memory
        self.address = self.size = 0

    def reserve(self, size: int) -> None:
        """Make room for a run that needs this many bytes.

        It may move: work that has been submitted is done before, and all graphs are dropped, since
        they hold the old address.

        Raises:
            BackendError: If the GPU has too little free memory.
        """
        if size <= self.size:
            return
        self._memory.commands.drop_graphs()
        self.free()
        driver = self._memory.commands.driver
        try:
            self.address = driver.alloc(size)
        except BackendError:
            self._memory.trim()
            self.address = driver.alloc(size)
        self.size = size

    def free(self) -> None:
        """Free it, once nothing uses it."""
        if self.size:
            address, self.address, self.size = self.address, 0, 0
            with suppress(BackendError):  # an error of the GPU stays: it shows elsewhere
                self._memory.commands.driver.free(address)


class Context:
    """An execution context; only what has changed since its last run is passed to it."""

    def __init__(self, context: Any, scratch: Scratch) -> None:
        self._context, self._scratch = context, scratch
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._memory = (0, 0)
        self._ready: EngineRun | None = None

    def needed_memory(self, shapes: Shapes) -> int:
        """Return the bytes of scratch memory for these shapes; 0 if TensorRT cannot tell.

        Raises:
            BackendError: If TensorRT refuses a shape.
        """
        self._ready = None
        for name, shape in shapes:
            if self._shapes.get(name) != shape:
                if not self._context.set_input_shape(name, shape):
                    raise BackendError(f"TensorRT refuses {name} of shape {shape}; see the log")
                self._shapes[name] = shape
        self._memory = (0, 0)  # the sizes of its parts have changed: give it again
        return int(self._context.update_device_memory_size_for_shapes())

    def execute(self, run: EngineRun, stream: int) -> bool:
        """Enqueue a run, and return whether TensorRT accepts it."""
        if run != self._ready:
            if not self._prepare(run):
                return False
            self._ready = run
        memory = (self._scratch.address, self._scratch.size)
        if self._memory != memory:
            self._context.set_device_memory(*memory)
            self._memory = memory
        return bool(self._context.execute_async_v3(stream))

    def _prepare(self, run: EngineRun) -> bool:
        if any(self._shapes.get(name) != shape for name, shape in run.shapes):
            self.needed_memory(run.shapes)
        for name, address in run.addresses:
            if self._addresses.get(name) != address:
                if not self._context.set_tensor_address(name, address):
                    return False
                self._addresses[name] = address
        return True


class Contexts:
    """The contexts of one engine: one for all runs, and others each for a single run.

    A CUDA graph holds the shapes and addresses of its capture, and its context must keep them
    (NVIDIA/TensorRT #3798). TensorRT-RTX captures its graphs itself, again whenever an address
    changes (pytorch/TensorRT #4187): there, runs that repeat have contexts of their own, too.

    Args:
        factory: Creates them.
        scratch: Their scratch memory.
        largest: Bytes of scratch memory for the largest shapes of the engine.

    Raises:
        BackendError: If the GPU has too little free memory.
    """

    def __init__(self, factory: ContextFactory, scratch: Scratch, largest: int) -> None:
        self._factory, self._scratch, self._largest = factory, scratch, largest
        self._shared = self._new()
        self._scratch_address = 0  # that the latest run used
        self._own: dict[EngineRun, Context] = {}  # the least recently used first
        self._last_run: dict[EngineRun, int] = {}
        self._needed: dict[Shapes, int] = {}
        self._times: dict[EngineRun, int] = {}
        self._times_of_shapes: dict[Shapes, int] = {}
        self._runs = 0

    def needed_memory(self, run: EngineRun) -> int:
        """Return the bytes of scratch memory that a run needs."""
        if run.shapes not in self._needed:
            # 0 stands for an error as well as for an engine that needs none.
            needed = self._shared.needed_memory(run.shapes) or self._largest
            _remember(self._needed, run.shapes, needed)
        return self._needed[run.shapes]

    def enqueue(self, run: EngineRun, memory: DeviceMemory, *, captured: bool) -> bool:
        """Enqueue a run, and return whether TensorRT accepts it.

        Args:
            run: The run.
            memory: Its stream.
            captured: Whether a CUDA graph will hold it: the first call then must come before the
                capture.

        Raises:
            BackendError: If there is too little memory for another context.
        """
        self._runs += 1
        self._follow_scratch()
        repeats = _count(self._times, run) > 1
        if captured or run in self._own or (repeats and self._factory.compiles):
            context = self._own_context(run, memory, needed=captured)
        else:
            context = self._shared
        accepted = context.execute(run, memory.stream)
        self._factory.ran(_count(self._times_of_shapes, run.shapes))
        return accepted

    def drop(self, runs: Iterable[Hashable]) -> None:
        """Drop the contexts of these runs, which must be done."""
        for run in runs:
            if isinstance(run, EngineRun) and run in self._own:
                del self._own[run], self._last_run[run]

    def close(self) -> None:
        """Drop all contexts, whose work must be done, and keep the kernels that they compiled."""
        self._own.clear()
        del self._shared
        self._factory.save()

    def _follow_scratch(self) -> None:
        """Replace contexts of TensorRT-RTX once their scratch memory has moved.

        NVIDIA does not say whether a graph that a context has captured is captured again then.
        """
        moved = self._scratch_address not in (0, self._scratch.address)
        if moved and self._factory.compiles:  # `Scratch.reserve` has waited for their work
            self._own.clear()
            self._last_run.clear()
            self._shared = self._new()
        self._scratch_address = self._scratch.address

    def _own_context(self, run: EngineRun, memory: DeviceMemory, *, needed: bool) -> Context:
        context = self._own.pop(run, None)
        if context is None:
            if not needed and not self._make_room(memory):
                return self._shared
            context = self._new()
        self._own[run] = context
        self._last_run[run] = self._runs
        return context

    def _make_room(self, memory: DeviceMemory) -> bool:
        """Return whether another context may be kept; drops an old one if it must."""
        if len(self._own) < MAX_OWN_CONTEXTS:
            return True
        oldest = next(iter(self._own))
        if self._runs - self._last_run[oldest] <= PATIENCE:
            return False
        memory.synchronize()
        self.drop([oldest])
        return True

    def _new(self) -> Context:
        context = self._factory.new()
        if context is None:
            raise BackendError(
                "the GPU has too little free memory for another execution context of TensorRT; "
                "free some, or export with a smaller image size"
            )
        return Context(context, self._scratch)


def _count(known: dict[Any, int], key: Hashable) -> int:
    """Count a key once more, and return how often it was counted."""
    times = known.pop(key, 0) + 1
    _remember(known, key, times)
    return times


def _remember(known: dict[Any, int], key: Hashable, value: int) -> None:
    """Keep a value, and forget the oldest one if there are too many."""
    known[key] = value
    if len(known) > MAX_KNOWN:
        del known[next(iter(known))]
