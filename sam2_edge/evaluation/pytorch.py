"""PyTorch as the reference: the graph modules as a backend, and transformers' own loop."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Sam2VideoInferenceSession

from sam2_edge.bundle.contract import Graph, graph_specs
from sam2_edge.bundle.manifest import Manifest, MemoryEntry
from sam2_edge.evaluation.reference import ReferencePrompt, ReferenceResult, ReferenceTracker
from sam2_edge.evaluation.tracker import MemoryAndPointer
from sam2_edge.models.graphs import graph_modules
from sam2_edge.models.graphs.image_encoder import IMAGE_MEAN, IMAGE_STD
from sam2_edge.models.variants import geometry_of
from sam2_edge.runtime.backends.base import Tensor
from sam2_edge.runtime.backends.host import HostTensors
from sam2_edge.runtime.preprocess import model_image
from sam2_edge.runtime.prompts import ModelPrompt, Prompt, model_prompt
from sam2_edge.runtime.results import FrameResult, ObjectResult


class TorchBackend(HostTensors):
    """Runs the graph modules of a `Sam2VideoModel` on the CPU, with a bundle's memory settings."""

    def __init__(self, model: Any, memory: MemoryEntry) -> None:
        self.name = "pytorch"
        self._modules = graph_modules(model, memory_rounding=memory.rounding)
        self.geometry = replace(geometry_of(model.config), memory_tokens=memory.tokens)
        self._specs = graph_specs(self.geometry)

    @torch.inference_mode()
    def run(self, graph: Graph, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one graph's module."""
        spec = self._specs[graph]
        # PyTorch warns about arrays that it cannot write to.
        arrays = (np.require(inputs[s.name], requirements=["C", "W"]) for s in spec.inputs)
        result = self._modules[graph](*map(torch.from_numpy, arrays))
        tensors = result if isinstance(result, tuple) else (result,)
        names = (output.name for output in spec.outputs)
        found = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return cast("dict[str, Tensor]", found)


class PyTorchTracker:
    """transformers' loop, made to follow the published predictor, as a `Tracker`.

    Args:
        model: A `Sam2VideoModel`.
        manifest: Of the bundle to compare with: image size and rounding of stored memory.
        clip_frames: Number of frames of the clip; None for a stream of unknown length.
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
        """Forget all objects."""
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
        wanted = {
            p.object_id: _reference_prompt(model_prompt(p, size, self._size)) for p in prompts
        }
        image = torch.from_numpy(model_image(frame, self._size)[0])
        self._previous, self._current = self._current, self._tracker.track(image, wanted)
        objects = tuple(
            ObjectResult(object_id, found.logits.numpy(), found.iou, found.object_score, size)
            for object_id, found in self._current.items()
        )
        return FrameResult(self._index, objects, size, 1e3 * (time.perf_counter() - start))

    def latest_memory(self, object_id: int) -> MemoryAndPointer | None:
        """Memory of the object's last frame before the current one; None if there is none."""
        found = self._previous.get(object_id)
        return None if found is None else (found.memory.numpy(), found.pointer.numpy())


def _reference_prompt(prompt: ModelPrompt) -> ReferencePrompt:
    if prompt.mask is not None:
        return ReferencePrompt(mask=torch.from_numpy(prompt.mask))
    return ReferencePrompt(torch.from_numpy(prompt.coords), torch.from_numpy(prompt.labels).long())


def normalized(image: NDArray[np.uint8]) -> torch.Tensor:
    """The output of `model_image`, normalized as transformers expects it: [3, S, S] float32."""
    mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    return ((torch.from_numpy(image[0]).float() / 255.0 - mean) / std).permute(2, 0, 1)


def add_prompt(
    session: Sam2VideoInferenceSession,
    prompt: Prompt,
    frame_size: tuple[int, int],
    *,
    frame: int,
    image_size: int,
) -> None:
    """Add a prompt to a session of transformers, on a frame of (height, width) pixels."""
    given = model_prompt(prompt, frame_size, image_size)
    index = session.obj_id_to_idx(prompt.object_id)
    if given.mask is not None:
        session.add_mask_inputs(index, frame, torch.from_numpy(given.mask)[None, None])
    else:
        points = {
            "point_coords": torch.from_numpy(given.coords)[None, None],
            "point_labels": torch.from_numpy(given.labels).long()[None, None],
        }
        session.add_point_inputs(index, frame, points)
    session.obj_with_new_inputs.append(prompt.object_id)
