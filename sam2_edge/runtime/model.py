"""Runs the graphs of a bundle, for the tracker, the segmenter and `compat` alike.

`Model` keeps no state between frames: callers choose the memories and handle the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.errors import BackendError, PromptError, Sam2EdgeError
from sam2_edge.runtime.backends import Backend, BackendName, Tensor, open_backend
from sam2_edge.runtime.prompts import NO_POINTS, ModelPrompt

LOGIT_LIMIT = 32.0
"""Limit of mask logits that are fed back with a new prompt (SAM 2, video predictor)."""

MASK_PROMPT_SCORE = 10.0
"""Object score (logit) of a mask prompt, which implies that the object is present."""


class NotCopyable:
    """What holds a backend's session or an open file: copies would share it by accident."""

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise Sam2EdgeError(
            f"{type(self).__name__} cannot be copied or pickled; make one of its own from the "
            "bundle's path wherever one is needed, such as in each process"
        )


@dataclass(frozen=True, slots=True)
class Features:
    """The image encoder's outputs for one frame, on the device.

    Attributes:
        high_res_0: [1, C/8, S/4, S/4].
        high_res_1: [1, C/4, S/8, S/8].
        embedding: [1, C, h, w].
        unconditioned: [1, C, h, w], for objects without memory.
    """

    high_res_0: Tensor
    high_res_1: Tensor
    embedding: Tensor
    unconditioned: Tensor


@dataclass(frozen=True, slots=True)
class MemoryInputs:
    """Inputs of memory attention for B objects with equal numbers of memories and pointers.

    Attributes:
        memory: [M, B, m, h, w].
        memory_age: [M, B] int32, 0 for conditioning frames.
        pointers: [P, B, C].
        pointer_age: [P, B] float32, as a fraction of the maximum age.
        memory_cells: [M, B, N] int32, the cells of each memory to attend to; None for all.
    """

    memory: Tensor
    memory_age: NDArray[np.int32]
    pointers: Tensor
    pointer_age: NDArray[np.float32]
    memory_cells: NDArray[np.int32] | None = None


@dataclass(frozen=True, slots=True)
class DecoderOutput:
    """The mask decoder's outputs for B objects, on the device.

    Attributes:
        masks: [B, 4, s, s] logits; mask 0 is the single-mask output, 1 to 3 the multimask output.
        iou: [B, 4] predicted IoU of each mask.
        mask_pointers: [B, 4, C] object pointer of each mask.
        best_index: [B] index of the decoder's choice.
        best_mask: [B, 1, s, s] its logits; all -1024 if the object is absent.
        best_iou: [B].
        pointer: [B, C] the pointer to remember.
        object_score: [B] logits; the object is present above 0.
    """

    masks: Tensor
    iou: Tensor
    mask_pointers: Tensor
    best_index: Tensor
    best_mask: Tensor
    best_iou: Tensor
    pointer: Tensor
    object_score: Tensor


class Model(NotCopyable):
    """The graphs of one bundle on one backend.

    Methods that take tensors upload numpy arrays first.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.backend = backend
        self.geometry = bundle.manifest.geometry
        self._mask_size = self.geometry.mask_size
        self.max_objects = bundle.max_size("B")
        """Objects per run; None without a limit."""

    def check_points(self, count: int) -> None:
        """Raise PromptError if the engines take fewer than `count` points per object."""
        limit = self.bundle.max_size("N")
        if limit is not None and count > limit:
            raise PromptError(
                f"{count} points, including the corners of a box; this bundle's engines take "
                f"{limit}: give fewer"
            )

    def encode(self, image: NDArray[np.uint8]) -> Features:
        """Run the image encoder on an RGB image [1, S, S, 3] uint8."""
        return Features(**self._run(Graph.IMAGE_ENCODER, {"image": image}))

    def attend(self, features: Features, inputs: MemoryInputs) -> Tensor:
        """Condition a frame on the memory of B objects.

        Returns:
            The conditioned embedding [B, C, h, w].

        Raises:
            BackendError: If there is no pointer, and the graphs are engines.
        """
        if not inputs.pointers.shape[0] and self.bundle.max_size("P") is not None:
            raise BackendError(
                "this bundle's engines need at least one object pointer, but there is none on this "
                "side of the prompted frame; start tracking at the prompted frame, or use a bundle "
                "of ONNX graphs"
            )
        tensors = {
            "embedding": features.embedding,
            "memory": inputs.memory,
            "memory_age": inputs.memory_age,
            "pointers": inputs.pointers,
            "pointer_age": inputs.pointer_age,
        }
        if inputs.memory_cells is not None:
            tensors["memory_cells"] = inputs.memory_cells
        return self._run(Graph.MEMORY_ATTENTION, tensors)["conditioned"]

    def decode(
        self,
        features: Features,
        conditioned: Tensor,
        prompt: ModelPrompt = NO_POINTS,
        *,
        multimask: bool,
        mask_input: Tensor | NDArray[np.float32] | None = None,
    ) -> DecoderOutput:
        """Run the mask decoder for B objects.

        Args:
            features: Features of the frame.
            conditioned: [B, C, h, w], from `attend`, or an embedding of `features`.
            prompt: One prompt for all objects, or one row per object.
            multimask: Whether to choose among masks 1 to 3.
            mask_input: [B, 1, s, s] logits of the mask to refine.
        """
        batch, points = conditioned.shape[0], prompt.labels.shape[-1]
        has_mask = mask_input is not None
        if mask_input is None:
            mask_input = np.zeros((batch, 1, self._mask_size, self._mask_size), np.float32)
        inputs = {
            "conditioned": conditioned,
            "high_res_0": features.high_res_0,
            "high_res_1": features.high_res_1,
            "point_coords": np.broadcast_to(prompt.coords, (batch, points, 2)),
            "point_labels": np.broadcast_to(prompt.labels, (batch, points)),
            "mask_input": mask_input,
            "has_mask": np.full(batch, has_mask, np.int32),
            "multimask": np.full(batch, multimask, np.int32),
        }
        return DecoderOutput(**self._run(Graph.MASK_DECODER, inputs))

    def encode_mask(self, mask: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        """Run the mask prompt graph on a mask [S, S] of 0 and 1.

        Returns:
            The decoder's `mask_input` [1, 1, s, s], and the mask as logits of +-10 [1, 1, s, s].
        """
        outputs = self._run(Graph.MASK_PROMPT, {"mask": mask[None, None]})
        return outputs["mask_input"], outputs["mask_logits"]

    def decode_mask(self, features: Features, mask: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        """Use a mask [S, S] as an object's output; the decoder computes only its pointer.

        The decoder takes the plain embedding (SAM 2, `_use_mask_as_output`).

        Returns:
            The mask's logits [1, 1, s, s] and the pointer [1, C].
        """
        mask_input, logits = self.encode_mask(mask)
        output = self.decode(features, features.embedding, multimask=False, mask_input=mask_input)
        return logits, output.pointer

    def encode_memory(
        self,
        features: Features,
        mask_logits: Tensor | NDArray[np.float32],
        object_score: Tensor | NDArray[np.float32],
        *,
        binarize: bool,
    ) -> Tensor:
        """Encode a frame and its masks as the memory of B objects.

        Args:
            features: Features of the frame.
            mask_logits: [B, 1, s, s].
            object_score: [B].
            binarize: Whether to binarize the masks first, as for prompted frames.

        Returns:
            The memory [B, m, h, w].
        """
        batch = mask_logits.shape[0]
        inputs = {
            "embedding": features.embedding,
            "mask_logits": mask_logits,
            "object_score": object_score,
            "binarize": np.full(batch, binarize, np.int32),
        }
        return self._run(Graph.MEMORY_ENCODER, inputs)["memory"]

    def _run(
        self, graph: Graph, inputs: Mapping[str, Tensor | NDArray[np.generic]]
    ) -> dict[str, Tensor]:
        upload = self.backend.upload
        tensors = {
            name: upload(value) if isinstance(value, np.ndarray) else value
            for name, value in inputs.items()
        }
        return self.backend.run(graph, tensors)


def open_model(
    bundle: Bundle | str | Path,
    backend: BackendName | Backend = "auto",
    *,
    threads: int | None = None,
) -> Model:
    """Load a bundle and open the backend that runs it.

    Args:
        bundle: A bundle, its folder, or the name of a bundled model.
        backend: Name of a backend, or a backend opened for this bundle.
        threads: CPU threads; None for all cores.

    Raises:
        BundleError: If the bundle cannot be used.
        BackendError: If the backend is missing or cannot run it.
    """
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    if isinstance(backend, str):
        backend = open_backend(loaded, backend, threads=threads)
    return Model(loaded, backend)


def clamp_logits(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clamp mask logits to `LOGIT_LIMIT`, as SAM 2 does before feeding them back."""
    return cast("NDArray[np.float32]", np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT))
