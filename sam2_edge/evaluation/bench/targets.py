"""What can be raced: a bundle through our tracker, and transformers' model in PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.errors import BackendError
from sam2_edge.evaluation.delegating import DelegatingBackend
from sam2_edge.runtime.backends import Backend, BackendName, Tensor, open_backend
from sam2_edge.runtime.backends.host import HostTensors
from sam2_edge.runtime.memory.policies import MemoryPolicyName
from sam2_edge.runtime.preprocess import model_image
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.tracker import VideoTracker

PREPROCESS, REST, POSTPROCESS, WHOLE = "preprocess", "rest", "postprocess", "whole frame"
"""Stages that are no graph's. rest: the memory bank and all else between the graphs."""

Times = dict[str, float]
"""Milliseconds by stage."""


class BenchTarget(Protocol):
    """Tracks the same frames as the others, each for itself."""

    name: str
    image_size: int
    device: Literal["cpu", "gpu"]

    def reset(self) -> None:
        """Forget everything."""
        ...

    def step(self, frame: NDArray[np.uint8], prompts: Sequence[Prompt]) -> Times:
        """Track one frame; what it took, `WHOLE` at least."""
        ...


class BundleTarget:
    """A bundle through `VideoTracker`, masks at the frame's own size included.

    staged: tell what every graph took, on a GPU by the device's own clock; without, the time of the
    whole frame alone.
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
        self.name = str(bundle.path)
        if recent_memories is not None:
            self.name += f", recent memories {recent_memories}"
        if memory_policy != "original":
            self.name += f", memory policy {memory_policy}"
        self.image_size = bundle.manifest.image_size
        opened = open_backend(bundle, backend, threads=threads)
        self.device: Literal["cpu", "gpu"] = "cpu" if isinstance(opened, HostTensors) else "gpu"
        self._clock = _StageClock(opened, staged=staged)
        self._tracker = VideoTracker(
            bundle,
            backend=self._clock,
            recent_memories=recent_memories,
            memory_policy=memory_policy,
        )
        self._staged = staged

    def reset(self) -> None:
        """See `BenchTarget.reset`."""
        self._tracker.reset()

    def step(self, frame: NDArray[np.uint8], prompts: Sequence[Prompt]) -> Times:
        """See `BenchTarget.step`."""
        start = time.perf_counter()
        result = self._tracker.track(frame, prompts)
        tracked = time.perf_counter()
        for found in result.objects:
            _ = found.mask
        end = time.perf_counter()
        times = {WHOLE: 1e3 * (end - start)}
        if self._staged:
            spent = self._clock.spent()
            times |= spent
            times[PREPROCESS] = _milliseconds(lambda: model_image(frame, self.image_size))
            inside = sum(spent.values()) + times[PREPROCESS]
            times[REST] = max(0.0, 1e3 * (tracked - start) - inside)
            times[POSTPROCESS] = 1e3 * (end - tracked)
        return times


class _StageClock(DelegatingBackend):
    """Puts marks before and after every graph; nothing waits for them while a frame is tracked."""

    def __init__(self, own: Backend, *, staged: bool) -> None:
        super().__init__(own)
        self._staged = staged
        self._marks: list[tuple[Graph, Any, Any]] = []

    def run(self, graph: Graph, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Backend.run`."""
        if not self._staged:
            return self._own.run(graph, inputs)
        before = self._own.mark()
        outputs = self._own.run(graph, inputs)
        self._marks.append((graph, before, self._own.mark()))
        return outputs

    def spent(self) -> Times:
        """Milliseconds of every graph since this was asked last."""
        found: Times = {}
        for graph, before, after in self._marks:
            spent = self._own.milliseconds(before, after)
            found[graph.value] = found.get(graph.value, 0.0) + spent
        self._marks.clear()
        return found


class PyTorchTarget:
    """transformers' video model as a stream, all objects in one session, in float32 on the CPU.

    compiled: the encoder, memory attention, memory encoder and mask decoder through `torch.compile`
    (it compiles while the memory fills, which is not measured).
    """

    device: Literal["cpu", "gpu"] = "cpu"

    def __init__(self, model: Any, *, compiled: bool = False, threads: int | None = None) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self.name = f"PyTorch on the CPU, {'compiled' if compiled else 'eager'}"
        self.image_size = int(model.config.image_size)
        self._model = model
        if compiled:
            _check_compiler()
            for part in ("vision_encoder", "memory_attention", "memory_encoder", "mask_decoder"):
                module = getattr(model, part)
                module.forward = torch.compile(module.forward, dynamic=part == "memory_attention")
        self.reset()

    def reset(self) -> None:
        """See `BenchTarget.reset`."""
        import torch
        from transformers import Sam2VideoInferenceSession

        self._session = Sam2VideoInferenceSession(dtype=torch.float32)
        self._index = -1

    def step(self, frame: NDArray[np.uint8], prompts: Sequence[Prompt]) -> Times:
        """See `BenchTarget.step`."""
        import torch

        from sam2_edge.evaluation.pytorch import add_prompt, normalized

        self._index += 1
        size = (frame.shape[0], frame.shape[1])
        start = time.perf_counter()
        with torch.inference_mode():
            pixels = normalized(model_image(frame, self.image_size))
            self._session.add_new_frame(pixels, self._index)
            for prompt in prompts:
                add_prompt(
                    self._session, prompt, size, frame=self._index, image_size=self.image_size
                )
            output = self._model(
                inference_session=self._session, frame_idx=self._index, frame=pixels
            )
            masks = torch.nn.functional.interpolate(output.pred_masks, size, mode="bilinear") > 0
            masks.numpy()
        del self._session.processed_frames[self._index]
        return {WHOLE: 1e3 * (time.perf_counter() - start)}


def _check_compiler() -> None:
    """Raise BackendError where PyTorch cannot compile."""
    import torch

    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2))
    except Exception as error:  # whatever the compiler's backend raises
        first = str(error).strip().partition("\n")[0]
        raise BackendError(
            f"torch.compile fails here ({first}); install a C++ compiler such as g++, or race "
            "pytorch instead"
        ) from error


def _milliseconds(act: Callable[[], Any]) -> float:
    start = time.perf_counter()
    act()
    return 1e3 * (time.perf_counter() - start)
