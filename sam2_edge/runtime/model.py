"""Runs the graphs of a bundle, for the tracker, the segmenter and `compat` alike.

`Model` keeps no state between frames: callers choose the memories and handle the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import LABEL_PAD, Graph, graph_specs
from sam2_edge.errors import BackendError, PromptError, Sam2EdgeError
from sam2_edge.runtime.backends import Backend, BackendName, Tensor, open_backend
from sam2_edge.runtime.mask_bits import PACKED, column_weights, row_weights
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
        memory: [R, m, h, w], all stored memories.
        memory_rows: [M, B] int32, which of them belong to an object.
        memory_age: [M, B] int32, 0 for conditioning frames.
        pointers: [P, B, C] float32.
        pointer_age: [P, B] float32, as a fraction of the maximum age.
        memory_cells: [M, B, N] int32, the cells of each memory to attend to; None for all.
    """

    memory: Tensor | NDArray[np.float32]
    memory_rows: NDArray[np.int32]
    memory_age: NDArray[np.int32]
    pointers: NDArray[np.float32]
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

    Methods that take tensors upload numpy arrays first, those of one call with a single copy.

    Args:
        bundle: The bundle.
        backend: Opened for it.
        owned: Whether `close` closes the backend.
    """

    def __init__(self, bundle: Bundle, backend: Backend, *, owned: bool = False) -> None:
        self._owned = owned
        self.bundle = bundle
        self.backend = backend
        self.geometry = bundle.manifest.geometry
        specs = graph_specs(self.geometry).values()
        self._dtypes = {tensor.name: tensor.dtype for spec in specs for tensor in spec.inputs}
        self._constants: dict[tuple[str, int], Tensor] = {}
        self._resize: tuple[tuple[int, int], dict[str, Tensor]] | None = None
        self.max_objects = bundle.max_size(Graph.MASK_DECODER, "B")
        """Objects per run of the decoder and the memory encoder; None without a limit."""
        self.max_attention = bundle.max_size(Graph.MEMORY_ATTENTION, "B")
        """Objects per run of memory attention; None without a limit."""

    def check_points(self, count: int) -> None:
        """Raise PromptError if the engines take fewer than `count` points per object."""
        limit = self.bundle.max_size(Graph.MASK_DECODER, "N")
        if limit is not None and count > limit:
            raise PromptError(
                f"{count} points, including the corners of a box; this bundle's engines take "
                f"{limit}: give fewer"
            )

    def encode(self, image: NDArray[np.uint8]) -> Features:
        """Run the image encoder on an RGB image [1, S, S, 3] uint8."""
        return Features(**self._run(Graph.IMAGE_ENCODER, {"image": image}))

    def attend(self, features: Features, *batches: MemoryInputs) -> Tensor:
        """Condition a frame on the memory of objects, in one batch or several.

        Returns:
            The conditioned embedding [B, C, h, w] of all objects, in order.

        Raises:
            BackendError: If there is no pointer, and the graphs are engines.
        """
        graph = Graph.MEMORY_ATTENTION
        for batch in batches:
            self._check_pointers(batch)
        inputs = self._uploaded(*(_given(batch) for batch in batches))
        sizes = [batch.memory_rows.shape[1] for batch in batches]
        if len(inputs) == 1:
            outputs = self.backend.run(graph, {"embedding": features.embedding, **inputs[0]})
            return outputs["conditioned"]
        shape = (sum(sizes), *features.embedding.shape[1:])
        conditioned = self.backend.empty(shape, self.geometry.feature_dtype)
        start = 0
        for size, tensors in zip(sizes, inputs, strict=True):
            part = {"conditioned": conditioned[start : start + size]}
            self.backend.run(graph, {"embedding": features.embedding, **tensors}, part)
            start += size
        return conditioned

    def _check_pointers(self, batch: MemoryInputs) -> None:
        if not len(batch.pointers) and self.bundle.max_size(Graph.MEMORY_ATTENTION, "P"):
            raise BackendError(
                "this bundle's engines need at least one object pointer, but there is none on this "
                "side of the prompted frame; start tracking at the prompted frame, or use a bundle "
                "of ONNX graphs"
            )

    def decode(
        self,
        features: Features,
        conditioned: Tensor,
        prompt: ModelPrompt = NO_POINTS,
        *,
        multimask: bool,
        mask_input: Tensor | NDArray[np.float32] | None = None,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> DecoderOutput:
        """Run the mask decoder for B objects.

        Args:
            features: Features of the frame.
            conditioned: [B, C, h, w], from `attend`, or an embedding of `features`.
            prompt: One prompt for all objects, or one row per object.
            multimask: Whether to choose among masks 1 to 3.
            mask_input: [B, 1, s, s] logits of the mask to refine.
            outputs: Tensors to write some of the outputs to, see `Backend.run`.
        """
        batch, points = conditioned.shape[0], prompt.labels.shape[-1]
        low = self.geometry.mask_size
        inputs: dict[str, Tensor | NDArray[Any]] = {
            "conditioned": conditioned,
            "high_res_0": features.high_res_0,
            "high_res_1": features.high_res_1,
            "has_mask": self._constant("has_mask", batch, int(mask_input is not None)),
            "multimask": self._constant("multimask", batch, int(multimask)),
        }
        if mask_input is None:
            mask_input = self._constant("mask_input", batch, 0, (1, low, low))
        inputs["mask_input"] = mask_input
        if prompt is NO_POINTS:
            inputs["point_coords"] = self._constant("point_coords", batch, 0, (1, 2))
            inputs["point_labels"] = self._constant("point_labels", batch, LABEL_PAD, (1,))
        else:
            inputs["point_coords"] = np.broadcast_to(prompt.coords, (batch, points, 2))
            inputs["point_labels"] = np.broadcast_to(prompt.labels, (batch, points))
        return DecoderOutput(**self._run(Graph.MASK_DECODER, inputs, outputs))

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
        memory: Tensor | None = None,
    ) -> Tensor:
        """Encode a frame and its masks as the memory of B objects.

        Args:
            features: Features of the frame.
            mask_logits: [B, 1, s, s].
            object_score: [B].
            binarize: Whether to binarize the masks first, as for prompted frames.
            memory: [B, m, h, w] to write the memory to; None for a new tensor.

        Returns:
            The memory [B, m, h, w].
        """
        inputs = {
            "embedding": features.embedding,
            "mask_logits": mask_logits,
            "object_score": object_score,
            "binarize": self._constant("binarize", mask_logits.shape[0], int(binarize)),
        }
        outputs = None if memory is None else {"memory": memory}
        return self._run(Graph.MEMORY_ENCODER, inputs, outputs)["memory"]

    def packs_masks(self, frame_size: tuple[int, int]) -> bool:
        """Whether masks of frames of (height, width) pixels are resized and packed on the device.

        A CPU resizes faster by itself, and a frame may be larger than the engine takes.
        """
        height, width = frame_size
        limits = (self.bundle.max_size(Graph.MASK_BITS, axis) for axis in ("H", "K"))
        sizes = (height, -(-width // PACKED))
        return self.backend.on_device and all(
            limit is None or size <= limit for size, limit in zip(sizes, limits, strict=True)
        )

    def write_bits(self, mask_logits: Tensor, frame_size: tuple[int, int], bits: Tensor) -> None:
        """Resize the logits [B, 1, s, s] of B objects to a frame and pack the masks into `bits`."""
        if self._resize is None or self._resize[0] != frame_size:
            low, (height, width) = self.geometry.mask_size, frame_size
            weights = {
                "row_weights": row_weights(low, height),
                "column_weights": column_weights(low, width),
            }
            self._resize = frame_size, self.backend.upload_block(weights)
        objects = mask_logits.shape[0]
        size = self.bundle.max_size(Graph.MASK_BITS, "B") or objects
        for start in range(0, objects, size):
            part = slice(start, min(start + size, objects))
            inputs = {"mask_logits": mask_logits[part], **self._resize[1]}
            self.backend.run(Graph.MASK_BITS, inputs, {"bits": bits[part]})

    def close(self) -> None:
        """Release all memory, and the backend if it is owned."""
        self._constants.clear()
        self._resize = None
        if self._owned:
            self.backend.close()

    def _constant(self, name: str, objects: int, value: int, shape: tuple[int, ...] = ()) -> Tensor:
        """Return an input [B, ...] of one value, which stays on the device."""
        tensor = self._constants.get((name, value))
        if tensor is None or tensor.shape[0] < objects:
            array = np.full((objects, *shape), value, self._dtypes[name])
            tensor = self._constants[name, value] = self.backend.upload(array)
        part: Tensor = tensor[:objects]
        return part

    def _run(
        self,
        graph: Graph,
        inputs: Mapping[str, Tensor | NDArray[Any]],
        outputs: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        (tensors,) = self._uploaded(inputs)
        return self.backend.run(graph, tensors, outputs)

    def _uploaded(self, *several: Mapping[str, Tensor | NDArray[Any]]) -> list[dict[str, Tensor]]:
        """Return the inputs of several runs with their numpy arrays as tensors."""
        arrays = {
            f"{name} {number}": np.asarray(value, self._dtypes[name])
            for number, inputs in enumerate(several)
            for name, value in inputs.items()
            if isinstance(value, np.ndarray)
        }
        tensors = self.backend.upload_block(arrays) if arrays else {}
        return [
            {
                name: tensors.get(f"{name} {number}", cast("Tensor", value))
                for name, value in inputs.items()
            }
            for number, inputs in enumerate(several)
        ]


def _given(batch: MemoryInputs) -> dict[str, Tensor | NDArray[Any]]:
    """The inputs of memory attention that a batch has."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if value is not None}


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
        return Model(loaded, open_backend(loaded, backend, threads=threads), owned=True)
    return Model(loaded, backend)


def clamp_logits(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clamp mask logits to `LOGIT_LIMIT`, as SAM 2 does before feeding them back."""
    return cast("NDArray[np.float32]", np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT))
