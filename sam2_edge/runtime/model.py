"""Running the mask decoder for a batch of objects, and keeping what a frame leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Geometry, Graph
from sam2_edge.runtime.backends.base import Backend, Tensor
from sam2_edge.runtime.prompts import NO_POINTS, ModelPrompt

if TYPE_CHECKING:
    from collections.abc import Mapping

PREVIOUS_LOGIT_LIMIT = 32.0
"""Logits that are fed back with a new prompt are clamped to this (SAM 2 video predictor)."""

MASK_PROMPT_SCORE = 10.0
"""Object score of a mask prompt: the user says that the object is there."""


@dataclass(slots=True)
class Features:
    """What the image encoder made of one frame."""

    high_res_0: Tensor
    high_res_1: Tensor
    embedding: Tensor
    unconditioned: Tensor


@dataclass(slots=True)
class Decoded:
    """The decoder's choice for a batch of objects, on the device until memory is written.

    object_ids: row b's object, None once another result has replaced it. mask_logits: [B,1,s,s].
    pointer: [B,C]. object_score, iou: [B]. prompted: these frames condition later ones. from_prompt: a
    prompt made these masks, so their memory is made from the binarized mask. memory_cells: [B,N]
    int32, what is attended to of their memories, None for all.
    """

    object_ids: list[int | None]
    mask_logits: Tensor
    pointer: Tensor
    object_score: Tensor
    iou: Tensor
    conditioning: bool
    from_prompt: bool
    memory_cells: NDArray[np.int32] | None = None


@dataclass(frozen=True, slots=True)
class Offered:
    """All masks of a batch of objects, on the device.

    masks: [B,4,s,s] logits. iou: [B,4]. object_score: [B].
    """

    object_ids: Sequence[int]
    masks: Tensor
    iou: Tensor
    object_score: Tensor


Choose = Callable[[Offered], "Mapping[int, int]"]
"""Names, by row, the masks to take in place of those of the highest predicted IoU."""


class Decoder:
    """The decoder graph and the mask prompt graph of one backend."""

    def __init__(self, backend: Backend, geometry: Geometry) -> None:
        self._backend = backend
        self._geometry = geometry

    def run(
        self,
        features: Features,
        conditioned: Tensor,
        prompt: ModelPrompt,
        *,
        multimask: bool,
        mask_input: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """All outputs of the decoder graph for `conditioned` [B,C,h,w], one prompt for every row.

        mask_input: [B,1,s,s] logits that the decoder sees besides the prompt.
        """
        batch = conditioned.shape[0]
        return self.run_rows(
            features,
            conditioned,
            np.repeat(prompt.coords[None], batch, axis=0),
            np.repeat(prompt.labels[None], batch, axis=0),
            multimask=multimask,
            mask_input=mask_input,
        )

    def run_rows(
        self,
        features: Features,
        conditioned: Tensor,
        coords: NDArray[np.float32],
        labels: NDArray[np.int32],
        *,
        multimask: bool,
        mask_input: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """As `run`, with a prompt of its own for every row.

        coords: [B,N,2] float32, pixels of the S x S input. labels: [B,N] int32.
        """
        batch, low = conditioned.shape[0], self._geometry.mask_size
        upload = self._backend.upload
        if mask_input is None:
            masks = upload(np.zeros((batch, 1, low, low), np.float32))
        else:
            masks = mask_input
        inputs: Mapping[str, Tensor] = {
            "conditioned": conditioned,
            "high_res_0": features.high_res_0,
            "high_res_1": features.high_res_1,
            "point_coords": upload(coords),
            "point_labels": upload(labels),
            "mask_input": masks,
            "has_mask": upload(np.full(batch, mask_input is not None, np.int32)),
            "multimask": upload(np.full(batch, multimask, np.int32)),
        }
        return self._backend.run(Graph.MASK_DECODER, inputs)

    def track(
        self, features: Features, conditioned: Tensor, object_ids: Sequence[int], choose: Choose
    ) -> Decoded:
        """Objects that nobody prompts on this frame: the best of three masks by predicted IoU, or
        what `choose` takes.
        """
        outputs = self.run(features, conditioned, NO_POINTS, multimask=True)
        decoded = _decoded(outputs, object_ids, conditioning=False, from_prompt=False)
        offered = Offered(object_ids, outputs["masks"], outputs["iou"], outputs["object_score"])
        taken = choose(offered)
        if taken:
            self._take(decoded, outputs, taken)
        return decoded

    def prompt(
        self,
        features: Features,
        conditioned: Tensor,
        object_id: int,
        prompt: ModelPrompt,
        *,
        previous: NDArray[np.float32] | None,
        conditioning: bool,
    ) -> Decoded:
        """One object that is prompted with points or a box.

        previous: [s,s] logits of the same frame that the prompt refines. prompted: the frame
        becomes a conditioning one.
        """
        mask_input = None
        if previous is not None:
            limited = np.clip(previous, -PREVIOUS_LOGIT_LIMIT, PREVIOUS_LOGIT_LIMIT)
            mask_input = self._backend.upload(limited[None, None])
        outputs = self.run(
            features,
            conditioned,
            prompt,
            multimask=prompt.wants_multimask,
            mask_input=mask_input,
        )
        return _decoded(outputs, [object_id], conditioning=conditioning, from_prompt=True)

    def _take(
        self, decoded: Decoded, outputs: Mapping[str, Tensor], taken: Mapping[int, int]
    ) -> None:
        """Put other masks of the decoder, by row, in the place of its choice."""
        backend = self._backend
        iou, offered = backend.download(decoded.iou), backend.download(outputs["iou"])
        for row, index in taken.items():
            backend.copy(outputs["masks"][row][index], decoded.mask_logits[row][0])
            backend.copy(outputs["mask_pointers"][row][index], decoded.pointer[row])
            iou[row] = offered[row, index]
        decoded.iou = backend.upload(iou)

    def mask(
        self, features: Features, object_id: int, mask: NDArray[np.float32], *, conditioning: bool
    ) -> Decoded:
        """One object that is given as a mask [S,S]: the mask is the output itself, and the decoder
        only makes its pointer, from the plain embedding (SAM 2, `_use_mask_as_output`).
        """
        upload = self._backend.upload
        seen = self._backend.run(Graph.MASK_PROMPT, {"mask": upload(mask[None, None])})
        outputs = self.run(
            features, features.embedding, NO_POINTS, multimask=False, mask_input=seen["mask_input"]
        )
        return Decoded(
            object_ids=[object_id],
            mask_logits=seen["mask_logits"],
            pointer=outputs["pointer"],
            object_score=upload(np.array([MASK_PROMPT_SCORE], np.float32)),
            iou=upload(np.ones(1, np.float32)),
            conditioning=conditioning,
            from_prompt=True,
        )


def _decoded(
    outputs: Mapping[str, Tensor],
    object_ids: Sequence[int],
    *,
    conditioning: bool,
    from_prompt: bool,
) -> Decoded:
    return Decoded(
        object_ids=list(object_ids),
        mask_logits=outputs["best_mask"],
        pointer=outputs["pointer"],
        object_score=outputs["object_score"],
        iou=outputs["best_iou"],
        conditioning=conditioning,
        from_prompt=from_prompt,
    )
