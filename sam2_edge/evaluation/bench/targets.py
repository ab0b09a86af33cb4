"""Benchmark targets: a bundle run by `VideoTracker`, and transformers' model in PyTorch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.errors import BackendError
from sam2_edge.evaluation.delegating import DelegatingBackend
from sam2_edge.evaluation.verify.references import source_model
from sam2_edge.runtime.backends import Backend, BackendName, Tensor, open_backend
from sam2_edge.runtime.backends.cuda.backend import DeviceBackend
from sam2_edge.runtime.backends.cuda.commands import Commands
from sam2_edge.runtime.memory.policies import MemoryPolicyName
from sam2_edge.runtime.preprocess import Frame, model_image
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.tracker import VideoTracker

PREPROCESS, REST, POSTPROCESS, WHOLE = "preprocess", "rest", "postprocess", "whole frame"
"""Stages other than graphs. rest: the memory bank and everything else between the graphs."""

PYTORCH, COMPILED = "pytorch", "pytorch-compiled"
"""Names of the targets that run in PyTorch."""

Times = dict[str, float]
"""Milliseconds by stage."""


class BenchTarget(Protocol):
    """One of several trackers that run interleaved on the same frames."""

    name: str
    device: Literal["cpu", "gpu"]

    def reset(self) -> None:
        """Drop every object."""
        ...

    def step(self, frame: Frame, prompts: Sequence[Prompt]) -> Times:
        """Track one frame, and return the times of its stages, at least `WHOLE`."""
        ...


def open_target(
    name: str,
    bundle: Bundle,
    *,
    backend: BackendName = "auto",
    threads: int | None = None,
    staged: bool = True,
) -> BenchTarget:
    """Open a bundle by its folder, or `PYTORCH` or `COMPILED` with the model of `bundle`.

    Raises:
        BackendError: If PyTorch is not installed, or the target cannot run.
    """
    if name not in (PYTORCH, COMPILED):
        return BundleTarget(load_bundle(name), backend=backend, threads=threads, staged=staged)
    model = source_model(bundle.manifest).model
    return PyTorchTarget(model, compiled=name == COMPILED, threads=threads)


def name_apart(targets: Sequence[BenchTarget]) -> None:
    """Name bundles by their paths if the names of their folders are the same."""
    counts = Counter(target.name for target in targets)
    for target in targets:
        if isinstance(target, BundleTarget) and counts[target.name] > 1:
            target.name = target.full_name


class BundleTarget:
    """A bundle run by `VideoTracker`, including masks at the size of the frame.

    `staged` times every graph (on a GPU by CUDA events), not only the whole frame. The other
    arguments are as for `VideoTracker`.

    Attributes:
        name: Name of the bundle's folder, and settings that are not the default.
        full_name: The same with the whole path.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        backend: BackendName = "auto",
        threads: int | None = None,
        recent_memories: int | None = None,
        memory_policy: MemoryPolicyName = "original",
        staged: bool = True,
    ) -> None:
        self.bundle = bundle
        settings = ""
        if recent_memories is not None:
            settings += f", recent memories {recent_memories}"
        if memory_policy != "original":
            settings += f", memory policy {memory_policy}"
        self.name = bundle.path.name + settings
        self.full_name = str(bundle.path) + settings
        self._image_size = bundle.manifest.image_size
        opened = open_backend(bundle, backend, threads=threads)
        self.device: Literal["cpu", "gpu"] = "gpu" if opened.on_device else "cpu"
        self._timed = TimedBackend(opened) if staged else None
        self._tracker = VideoTracker(
            bundle,
            backend=self._timed or opened,
            recent_memories=recent_memories,
            memory_policy=memory_policy,
        )

    def reset(self) -> None:
        """Drop every object."""
        self._tracker.reset()

    def step(self, frame: Frame, prompts: Sequence[Prompt]) -> Times:
        """Track one frame and compute its masks."""
        start = time.perf_counter()
        result = self._tracker.track(frame, prompts)
        tracked = time.perf_counter()
        for entry in result.objects:
            _ = entry.mask
        end = time.perf_counter()
        times = {WHOLE: 1e3 * (end - start)}
        if self._timed is not None:
            graphs = self._timed.take_times()
            # `track` includes preprocessing; repeat it to time it separately.
            model_image(frame, self._image_size)
            preprocess = 1e3 * (time.perf_counter() - end)
            accounted = sum(graphs.values()) + preprocess
            times |= graphs
            times[PREPROCESS] = preprocess
            times[REST] = max(0.0, 1e3 * (tracked - start) - accounted)
            times[POSTPROCESS] = 1e3 * (end - tracked)
        return times


class HostClock:
    """Times work on the CPU, where calls are synchronous."""

    def now(self) -> float:
        """Return a timestamp."""
        return time.perf_counter()

    def milliseconds(self, first: float, last: float) -> float:
        """Return the time between two timestamps."""
        return 1e3 * (last - first)


class CudaClock:
    """Times work on a GPU by events on its stream, without synchronization."""

    def __init__(self, commands: Commands) -> None:
        self._commands, self._driver = commands, commands.driver

    def now(self) -> int:
        """Record and return an event after all work submitted so far.

        Work that was kept for the whole frame is enqueued: with clocks between graphs, each part
        of the frame becomes a CUDA graph of its own.
        """
        self._commands.flush()
        event = self._driver.create_event()
        self._driver.record_event(event, self._commands.stream)
        return event

    def milliseconds(self, first: int, last: int) -> float:
        """Return the time between two events; waits for the last one and destroys both."""
        elapsed = self._driver.event_milliseconds(first, last)
        for event in (first, last):
            self._driver.destroy_event(event)
        return elapsed


class TimedBackend(DelegatingBackend):
    """Times every graph without synchronizing while a frame is tracked."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self._clock: HostClock | CudaClock = (
            CudaClock(inner.commands) if isinstance(inner, DeviceBackend) else HostClock()
        )
        self._runs: list[tuple[Graph, Any, Any]] = []

    def run(
        self,
        graph: Graph,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Run one graph between two timestamps."""
        before = self._clock.now()
        made = self._inner.run(graph, inputs, outputs)
        self._runs.append((graph, before, self._clock.now()))
        return made

    def take_times(self) -> Times:
        """Return the milliseconds of every graph since the last call; waits for the last graph."""
        times: Times = {}
        for graph, before, after in self._runs:
            elapsed = self._clock.milliseconds(before, after)
            times[graph.value] = times.get(graph.value, 0.0) + elapsed
        self._runs.clear()
        return times


class PyTorchTarget:
    """transformers' streaming video model, with all objects in one session, float32 on the CPU.

    Args:
        model: A video model of transformers.
        compiled: Whether to use `torch.compile` for the encoder, memory attention, memory encoder
            and mask decoder. They compile while the memory fills, before times count.
        threads: CPU threads; None for all cores.

    Raises:
        BackendError: If `torch.compile` fails on this machine.
    """

    device: Literal["cpu", "gpu"] = "cpu"

    def __init__(self, model: Any, *, compiled: bool = False, threads: int | None = None) -> None:
        import torch

        from sam2_edge.models.families import family_of

        if threads is not None:
            torch.set_num_threads(threads)
        self.name = f"PyTorch on the CPU, {'compiled' if compiled else 'eager'}"
        self._image_size = int(model.config.image_size)
        self._family = family_of(model.config)
        self._model = model
        if compiled:
            _check_compiler()
            for part in ("vision_encoder", "memory_attention", "memory_encoder", "mask_decoder"):
                module = getattr(model, part)
                module.forward = torch.compile(module.forward, dynamic=part == "memory_attention")
        self.reset()

    def reset(self) -> None:
        """Drop every object."""
        import torch

        self._session = self._family.session_class(dtype=torch.float32)
        self._index = -1

    def step(self, frame: Frame, prompts: Sequence[Prompt]) -> Times:
        """Track one frame and compute its masks."""
        import torch

        from sam2_edge.evaluation.pytorch import reference_prompt
        from sam2_edge.evaluation.pytorch_loop import add_prompt, normalized

        self._index += 1
        size = (frame.shape[0], frame.shape[1])
        start = time.perf_counter()
        with torch.inference_mode():
            image = torch.from_numpy(model_image(frame, self._image_size)[0])
            pixels = normalized(image, self._family)
            self._session.add_new_frame(pixels, self._index)
            for prompt in prompts:
                scaled = reference_prompt(prompt, size, self._image_size)
                add_prompt(self._session, prompt.object_id, scaled, self._index)
            output = self._model(
                inference_session=self._session, frame_idx=self._index, frame=pixels
            )
            masks = torch.nn.functional.interpolate(output.pred_masks, size, mode="bilinear") > 0
            masks.numpy()
        del self._session.processed_frames[self._index]
        return {WHOLE: 1e3 * (time.perf_counter() - start)}


def _check_compiler() -> None:
    import torch

    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2))
    except Exception as error:  # whatever the compiler's backend raises
        first = str(error).strip().partition("\n")[0]
        raise BackendError(
            f"torch.compile fails here ({first}); install a C++ compiler such as g++, or compare "
            "with pytorch instead"
        ) from error
