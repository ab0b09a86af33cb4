"""Objects decoded together on one frame: what stays on the device, and what the host has of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.backends.base import Backend, Tensor
from sam2_edge.runtime.model import MASK_PROMPT_SCORE, DecoderOutput


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
        bits: [B, H, K] uint8, room for the packed masks; None if none was allocated.
        host_pointer: [B, C] float32, on the host once the results have been read.
        device_logits: Access to logits that have stayed on the device.
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
    bits: Tensor | None = None
    host_pointer: NDArray[np.float32] | None = None
    device_logits: DeviceLogits | None = None
    memory_cells: NDArray[np.int32] | None = None

    @classmethod
    def of(
        cls,
        object_ids: tuple[int, ...],
        output: DecoderOutput,
        *,
        bits: Tensor | None = None,
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
            bits=bits,
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

    def release(self) -> None:
        """End the access to logits on the device."""
        if self.device_logits is not None:
            self.device_logits.release()


class DeviceLogits:
    """The logits [B, 1, s, s] of a batch, on the device until the next frame."""

    def __init__(self, backend: Backend, mask_logits: Tensor) -> None:
        self._backend = backend
        self._mask_logits: Tensor | None = mask_logits
        self._thread = threading.get_ident()

    def fetch(self, row: int) -> NDArray[np.float32]:
        """Copy the logits [s, s] of one object to the host.

        Raises:
            Sam2EdgeError: The tracker has moved on to the next frame, or another thread uses it.
        """
        if self._mask_logits is None:
            raise Sam2EdgeError(
                "the logits of this frame are no longer on the GPU; read them before the next "
                "frame is tracked, or open the tracker with logits=True"
            )
        if threading.get_ident() != self._thread:
            raise Sam2EdgeError(
                "logits are copied from the GPU only in the thread that tracked the frame, since a "
                "backend serves one thread; read them there, or open the tracker with logits=True"
            )
        logits: NDArray[np.float32] = self._backend.download(self._mask_logits[row])[0]
        return logits

    def release(self) -> None:
        """Give the device memory back."""
        self._mask_logits = None
