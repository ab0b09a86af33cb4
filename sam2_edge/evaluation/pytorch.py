"""PyTorch as the reference: the graphs' modules as a backend, and transformers' own loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Sam2VideoInferenceSession

from sam2_edge.bundle.contract import Graph, graph_specs
from sam2_edge.bundle.manifest import Manifest, MemoryEntry
from sam2_edge.evaluation.tracker_adapter import Remembered, State
from sam2_edge.models.graphs import graph_modules
from sam2_edge.models.graphs.image_encoder import IMAGE_MEAN, IMAGE_STD
from sam2_edge.models.reference import ReferencePrompt, ReferenceResult, ReferenceTracker
from sam2_edge.models.variants import geometry_of
from sam2_edge.runtime.backends.base import Tensor
from sam2_edge.runtime.backends.host import HostTensors
from sam2_edge.runtime.preprocess import model_image
from sam2_edge.runtime.prompts import ModelPrompt, Prompt, model_prompt


class TorchBackend(HostTensors):
    """The graph modules of a `Sam2VideoModel` on the CPU, with a bundle's choices on memory; see
    `Backend`.
    """

    def __init__(self, model: Any, memory: MemoryEntry) -> None:
        self.name = "pytorch"
        self._modules = graph_modules(model, memory_rounding=memory.rounding)
        self.geometry = replace(geometry_of(model.config), memory_tokens=memory.tokens)
        self._specs = graph_specs(self.geometry)

    @torch.inference_mode()
    def run(self, graph: Graph, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Backend.run`."""
        spec = self._specs[graph]
        given = (torch.from_numpy(np.ascontiguousarray(inputs[s.name])) for s in spec.inputs)
        result = self._modules[graph](*given)
        tensors = result if isinstance(result, tuple) else (result,)
        names = (output.name for output in spec.outputs)
        arrays = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return cast("dict[str, Tensor]", arrays)


class PyTorchLoop:
    """transformers' loop, which follows the published predictor, as a `TrackerAdapter`."""

    def __init__(self, model: Any, manifest: Manifest, clip_frames: int | None) -> None:
        self._size = manifest.image_size
        self._tracker = ReferenceTracker(
            model, clip_frames=clip_frames, memory_rounding=manifest.memory.rounding
        )

        self._now: dict[int, ReferenceResult] = {}
        self._before: dict[int, ReferenceResult] = {}

    @torch.inference_mode()
    def follow(self, frame: NDArray[np.uint8], prompts: Sequence[Prompt]) -> dict[int, State]:
        """See `TrackerAdapter.follow`."""
        size = (frame.shape[0], frame.shape[1])
        wanted = {
            p.object_id: _reference_prompt(model_prompt(p, size, self._size)) for p in prompts
        }
        image = torch.from_numpy(model_image(frame, self._size)[0])
        self._before, self._now = self._now, self._tracker.track(image, wanted)
        return {
            object_id: State(found.logits.numpy(), found.object_score)
            for object_id, found in self._now.items()
        }

    def remembered(self, object_id: int) -> Remembered | None:
        """See `TrackerAdapter.remembered`."""
        found = self._before.get(object_id)
        return None if found is None else (found.memory.numpy(), found.pointer.numpy())


def _reference_prompt(prompt: ModelPrompt) -> ReferencePrompt:
    if prompt.mask is not None:
        return ReferencePrompt(mask=torch.from_numpy(prompt.mask))
    return ReferencePrompt(torch.from_numpy(prompt.coords), torch.from_numpy(prompt.labels).long())


def normalized(image: NDArray[np.uint8]) -> torch.Tensor:
    """What `model_image` gives, as the [3,S,S] float32 that transformers' model takes."""
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
    """Give transformers' session a prompt on a frame of (height, width) pixels."""
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
