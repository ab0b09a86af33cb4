"""Results of the current frame, kept on the device until they are encoded as memory.

That happens when the next frame arrives: until then a prompt may change the masks, and the result
is available sooner.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.decoded import DecodedBatch
from sam2_edge.runtime.memory.bank import MemoryBank
from sam2_edge.runtime.memory.policies.objects import EVERY_FRAME, ObjectPolicies
from sam2_edge.runtime.memory.slots import Keep
from sam2_edge.runtime.model import Features, Model
from sam2_edge.runtime.results import ObjectResult


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
        for batch in self._batches:
            batch.release()
        self._batches.clear()

    def discard(self, object_id: int) -> None:
        """Drop an object's current result."""
        for batch in self._batches:
            batch.current &= np.array([i != object_id for i in batch.object_ids])
        # Results must not accumulate while a frame is refined repeatedly.
        for batch in self._batches:
            if not batch.current.any():
                batch.release()
        self._batches = [batch for batch in self._batches if batch.current.any()]

    def logits(self, object_id: int) -> NDArray[np.float32] | None:
        """Return an object's current logits [1, 1, s, s]; None if it has no result yet."""
        for batch in self._batches:
            for row in np.flatnonzero(batch.current):
                if batch.object_ids[row] == object_id:
                    return self._model.backend.download(batch.mask_logits[row])[None]
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
                memory, target = self._bank.take_rows(len(batch.object_ids))
                self._model.encode_memory(
                    features,
                    batch.mask_logits,
                    batch.object_score,
                    binarize=batch.from_prompt,
                    memory=target,
                )
            assert batch.host_pointer is not None  # results are read before the next frame
            self._bank.write(
                frame,
                batch.object_ids,
                memory,
                batch.host_pointer,
                rows=batch.current,
                conditioning=batch.conditioning,
                keep=keep,
                cells=batch.memory_cells,
            )
        self.clear()
