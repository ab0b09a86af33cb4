"""PyTorch as the reference: the graph modules as a backend, and transformers' loop as a tracker."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Graph, graph_specs
from sam2_edge.bundle.manifest import Manifest
from sam2_edge.evaluation.pytorch_loop import ReferencePrompt, ReferenceResult, ReferenceTracker
from sam2_edge.evaluation.tracker import MemoryAndPointer
from sam2_edge.models.families import geometry_of
from sam2_edge.models.graphs import graph_modules
from sam2_edge.runtime.backends.base import Tensor
from sam2_edge.runtime.backends.host import HostTensors
from sam2_edge.runtime.preprocess import model_image
from sam2_edge.runtime.prompts import Prompt, model_prompt
from sam2_edge.runtime.results import FrameResult, ObjectResult


class TorchBackend(HostTensors):
    """Runs a model's graph modules in float32 on the CPU, with a bundle's settings.

    Attributes:
        geometry: Geometry of the model with these settings.
    """

    def __init__(self, model: Any, manifest: Manifest) -> None:
        self.name = "pytorch"
        self._modules = graph_modules(model, memory_rounding=manifest.memory.rounding)
        self.geometry = replace(
            geometry_of(model.config),
            memory_tokens=manifest.memory.tokens,
            feature_dtype=manifest.feature_dtype,
        )
        self._specs = graph_specs(self.geometry)

    @torch.inference_mode()
    def run(
        self,
        graph: Graph,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Run one graph's module."""
        spec = self._specs[graph]
        # PyTorch warns about read-only arrays.
        arrays = (
            np.require(inputs[s.name], s.dtype.replace("float16", "float32"), ["C", "W"])
            for s in spec.inputs
        )
        result = self._modules[graph](*map(torch.from_numpy, arrays))
        tensors = result if isinstance(result, tuple) else (result,)
        made = {
            output.name: cast("Tensor", tensor.numpy().astype(output.dtype))
            for output, tensor in zip(spec.outputs, tensors, strict=True)
        }
        for name, target in (outputs or {}).items():
            self.copy(made[name], target)
        return {**made, **(outputs or {})}


class PyTorchTracker:
    """`ReferenceTracker` as a `Tracker`.

    Args:
        model: A video model of transformers.
        manifest: Manifest of the bundle to compare with; sets image size and memory rounding.
        clip_frames: Number of frames in the clip; None for a stream of unknown length.
    """

    def __init__(self, model: Any, manifest: Manifest, clip_frames: int | None = None) -> None:
        self._size = manifest.image_size
        self._make = partial(
            ReferenceTracker,
            model,
            clip_frames=clip_frames,
            memory_rounding=manifest.memory.rounding,
        )
        self.reset()

    def reset(self) -> None:
        """Drop every object."""
        self._tracker = self._make()
        self._index = -1
        self._current: dict[int, ReferenceResult] = {}
        self._previous: dict[int, ReferenceResult] = {}

    @torch.inference_mode()
    def track(self, frame: NDArray[np.uint8], prompts: Sequence[Prompt] = ()) -> FrameResult:
        """Track the next frame, [H, W, 3] BGR."""
        start = time.perf_counter()
        self._index += 1
        size = (frame.shape[0], frame.shape[1])
        by_object = {p.object_id: reference_prompt(p, size, self._size) for p in prompts}
        image = torch.from_numpy(model_image(frame, self._size)[0])
        self._previous, self._current = self._current, self._tracker.track(image, by_object)
        objects = tuple(
            ObjectResult(object_id, result.logits.numpy(), result.iou, result.object_score, size)
            for object_id, result in self._current.items()
        )
        return FrameResult(self._index, objects, size, 1e3 * (time.perf_counter() - start))

    def latest_memory(self, object_id: int) -> MemoryAndPointer | None:
        """Return the memory and pointer of the object's previous frame; None if there are none."""
        previous = self._previous.get(object_id)
        return None if previous is None else (previous.memory.numpy(), previous.pointer.numpy())


def reference_prompt(
    prompt: Prompt, frame_size: tuple[int, int], image_size: int
) -> ReferencePrompt:
    """Convert a prompt on a frame of (height, width) pixels for the reference."""
    scaled = model_prompt(prompt, frame_size, image_size)
    if scaled.mask is not None:
        return ReferencePrompt(mask=torch.from_numpy(scaled.mask))
    return ReferencePrompt(torch.from_numpy(scaled.coords), torch.from_numpy(scaled.labels).long())
