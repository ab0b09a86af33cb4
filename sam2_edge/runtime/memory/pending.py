"""Results of the current frame, kept on the device until they are encoded as memory.

That happens when the next frame arrives: until then a prompt may change the masks, and the result
is available sooner.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.backends import Backend, Tensor
from sam2_edge.runtime.memory.bank import MemoryBank
from sam2_edge.runtime.memory.policies.objects import EVERY_FRAME, ObjectPolicies
from sam2_edge.runtime.memory.slots import Keep
from sam2_edge.runtime.model import MASK_PROMPT_SCORE, DecoderOutput, Features, Model
from sam2_edge.runtime.results import ObjectResult


@dataclass(slots=True)
class DecodedBatch:
    """Objects decoded together on one frame.

    Attributes:
        object_ids: Object of each row.
        current: [B] bool, whether a row is still its object's result on this frame.
        mask_logits: [B, 1, s, s].
        pointer: [B, C].
        object_score: [B].
        iou: [B].
        conditioning: Whether this becomes a conditioning frame of these objects.
        from_prompt: Whether the masks come from a prompt, so that memory uses binarized masks.
        memory_cells: [B, N] int32, the cells of their memories to attend to; None for all.
    """

    object_ids: tuple[int, ...]
    current: NDArray[np.bool_]
    mask_logits: Tensor
    pointer: Tensor
    object_score: Tensor
    iou: Tensor
    conditioning: bool
    from_prompt: bool
    memory_cells: NDArray[np.int32] | None = None

    @classmethod
    def of(
        cls,
        object_ids: tuple[int, ...],
        output: DecoderOutput,
        *,
        conditioning: bool = False,
        from_prompt: bool = False,
    ) -> DecodedBatch:
        """Make a batch of the decoder's own choice for each object."""
        return cls(
            object_ids=object_ids,
            current=np.ones(len(object_ids), np.bool_),
            mask_logits=output.best_mask,
            pointer=output.pointer,
            object_score=output.object_score,
            iou=output.best_iou,
            conditioning=conditioning,
            from_prompt=from_prompt,
        )

    @classmethod
    def of_mask(
        cls,
        object_id: int,
        logits: Tensor,
        pointer: Tensor,
        backend: Backend,
        *,
        conditioning: bool,
    ) -> DecodedBatch:
        """Make a batch of a mask prompt, which implies that the object is present."""
        return cls(
            object_ids=(object_id,),
            current=np.ones(1, np.bool_),
            mask_logits=logits,
            pointer=pointer,
            object_score=backend.upload(np.array([MASK_PROMPT_SCORE], np.float32)),
            iou=backend.upload(np.ones(1, np.float32)),
            conditioning=conditioning,
            from_prompt=True,
        )

    def replace_masks(
        self, output: DecoderOutput, chosen: Mapping[int, int], backend: Backend
    ) -> None:
        """Replace the decoder's choice, by row, with other masks of its output."""
        if not chosen:
            return
        iou, candidates = backend.download(self.iou), backend.download(output.iou)
        for row, index in chosen.items():
            backend.copy(output.masks[row][index], self.mask_logits[row][0])
            backend.copy(output.mask_pointers[row][index], self.pointer[row])
            iou[row] = candidates[row, index]
        self.iou = backend.upload(iou)


class PendingFrame:
    """The batches of the current frame.

    Args:
        model: Encodes memories.
        bank: Stores them.
        policies: Decide which memories are kept.
        remember_absent: Whether to store memories of frames on which an object is absent.
    """

    def __init__(
        self, model: Model, bank: MemoryBank, policies: ObjectPolicies, *, remember_absent: bool
    ) -> None:
        self._model = model
        self._bank = bank
        self._policies = policies
        self._remember_absent = remember_absent
        self._batches: list[DecodedBatch] = []

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, batch: DecodedBatch) -> None:
        """Add a batch."""
        self._batches.append(batch)

    def clear(self) -> None:
        """Drop every batch."""
        self._batches.clear()

    def discard(self, object_id: int) -> None:
        """Drop an object's current result."""
        for batch in self._batches:
            batch.current &= np.array([i != object_id for i in batch.object_ids])
        # Results must not accumulate while a frame is refined repeatedly.
        self._batches = [batch for batch in self._batches if batch.current.any()]

    def logits(self, object_id: int) -> NDArray[np.float32] | None:
        """Return an object's current logits [1, 1, s, s]; None if it has no result yet."""
        for batch in self._batches:
            for row in np.flatnonzero(batch.current):
                if batch.object_ids[row] == object_id:
                    return self._model.backend.download(batch.mask_logits)[row][None]
        return None

    def write(
        self, frame: int, features: Features | None, results: Mapping[int, ObjectResult]
    ) -> None:
        """Write the frame's memories to the bank and drop its batches."""
        for batch in self._batches:
            assert features is not None  # every batch was decoded from them
            keep: list[Collection[Keep]] = [EVERY_FRAME] * len(batch.object_ids)
            for row in np.flatnonzero(batch.current):
                object_id = batch.object_ids[row]
                if self._policies.objects:
                    keep[row] = self._policies.keep(object_id)
                score = results[object_id].object_score
                absent = not np.isfinite(score) or (score <= 0 and not self._remember_absent)
                if absent and not batch.conditioning:
                    batch.current[row] = False
                    self._bank.freeze(object_id)
            if not batch.current.any():
                continue
            memory = None
            if batch.conditioning or any(keep[row] for row in np.flatnonzero(batch.current)):
                memory = self._model.encode_memory(
                    features, batch.mask_logits, batch.object_score, binarize=batch.from_prompt
                )
            self._bank.write(
                frame,
                batch.object_ids,
                memory,
                batch.pointer,
                rows=batch.current,
                conditioning=batch.conditioning,
                keep=keep,
                cells=batch.memory_cells,
            )
        self._batches.clear()
