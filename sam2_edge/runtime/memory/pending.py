"""Results of the current frame, kept on the device until they are encoded as memory.

That happens when the next frame arrives: until then a prompt may change the masks, and the result
is available sooner.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.runtime.backends.base import Tensor
from sam2_edge.runtime.decoded import DecodedBatch
from sam2_edge.runtime.memory.bank import MemoryBank
from sam2_edge.runtime.memory.policies.objects import EVERY_FRAME, ObjectPolicies
from sam2_edge.runtime.memory.saved import SavedDecoding, SavedObject
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
        found = self._find(object_id)
        if found is None:
            return None
        batch, row = found
        return self._model.backend.download(batch.mask_logits[row])[None]

    def save(self, object_id: int, features: Features) -> SavedDecoding:
        """Copy the current result of an object, which has one, with its memory to the host."""
        found = self._find(object_id)
        assert found is not None  # every object has a result on every frame
        batch, row = found

        def copy_of(tensor: Tensor) -> NDArray[Any]:
            return np.array(self._model.backend.download(tensor[row : row + 1]))

        memory = self._model.encode_memory(
            features,
            batch.mask_logits[row : row + 1],
            batch.object_score[row : row + 1],
            binarize=batch.from_prompt,
        )
        cells = batch.memory_cells
        return SavedDecoding(
            mask_logits=copy_of(batch.mask_logits),
            pointer=copy_of(batch.pointer),
            object_score=copy_of(batch.object_score),
            iou=copy_of(batch.iou),
            conditioning=batch.conditioning,
            from_prompt=batch.from_prompt,
            memory_cells=None if cells is None else cells[row : row + 1].copy(),
            memory=np.array(self._model.backend.download(memory[0])),
        )

    def restore(self, object_id: int, saved: SavedDecoding) -> DecodedBatch:
        """Make a saved result the object's current one again, and return its batch."""
        self.discard(object_id)
        upload = self._model.backend.upload
        batch = DecodedBatch(
            object_ids=(object_id,),
            current=np.ones(1, np.bool_),
            mask_logits=upload(saved.mask_logits),
            pointer=upload(saved.pointer),
            object_score=upload(saved.object_score),
            iou=upload(saved.iou),
            conditioning=saved.conditioning,
            from_prompt=saved.from_prompt,
            memory_cells=saved.memory_cells,
        )
        self.add(batch)
        return batch

    def write_saved(self, saved: SavedObject, frame: int) -> None:
        """Write a result of an earlier frame to the bank, as if the frame `frame` followed it."""
        object_id, decoding = saved.object_id, saved.decoding
        self.discard(object_id)
        score = decoding.object_score[0]
        absent = not np.isfinite(score) or (score <= 0 and not self._remember_absent)
        if absent and not decoding.conditioning:
            self._bank.freeze(object_id)
        else:
            self._bank.write(
                saved.frame_index,
                (object_id,),
                self._bank.restore_rows([decoding.memory]),
                decoding.pointer,
                conditioning=decoding.conditioning,
                cells=decoding.memory_cells,
            )
        self._bank.continue_at(object_id, frame, after=saved.frame_index)

    def _find(self, object_id: int) -> tuple[DecodedBatch, int] | None:
        for batch in self._batches:
            for row in np.flatnonzero(batch.current):
                if batch.object_ids[row] == object_id:
                    return batch, int(row)
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
