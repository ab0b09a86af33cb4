"""Brings the results of decoded batches to the host.

On a GPU the results of a batch lie in one block, so that one copy and one wait fetch them. Masks
come as bits at the size of the frame, a fraction of the logits' size, and logits only on request.
"""

from __future__ import annotations

from functools import partial

from sam2_edge.runtime.backends.base import Tensor
from sam2_edge.runtime.decoded import DecodedBatch, DeviceLogits
from sam2_edge.runtime.mask_bits import PACKED
from sam2_edge.runtime.model import Model
from sam2_edge.runtime.results import DeviceMask, ObjectResult

BITS = "bits"


class Readout:
    """Allocates the results of batches, and copies them to the host.

    Args:
        model: Decodes the batches.
        logits: Whether logits are copied to the host with the other results, instead of bits.
    """

    def __init__(self, model: Model, *, logits: bool) -> None:
        self._model = model
        self._logits = logits

    def allocate(self, objects: int, frame_size: tuple[int, int]) -> dict[str, Tensor]:
        """Allocate outputs of the decoder for B objects, and BITS, in one block.

        Returns:
            Nothing on the host, where results need no copy.
        """
        backend, geometry = self._model.backend, self._model.geometry
        if not backend.on_device:
            return {}
        layout: dict[str, tuple[tuple[int, ...], str]] = {
            "best_iou": ((objects,), "float32"),
            "object_score": ((objects,), "float32"),
            "pointer": ((objects, geometry.hidden), "float32"),
        }
        bits = self._bits_shape(objects, frame_size)
        if bits is not None:
            layout[BITS] = (bits, "uint8")
        else:
            side = geometry.mask_size
            layout["best_mask"] = ((objects, 1, side, side), "float32")
        return backend.empty_block(layout)

    def read(self, batch: DecodedBatch, frame_size: tuple[int, int]) -> list[ObjectResult]:
        """Copy the results of a batch to the host; waits for the device once."""
        backend = self._model.backend
        tensors = {
            "iou": batch.iou,
            "object_score": batch.object_score,
            "pointer": batch.pointer,
        }
        shape = self._bits_shape(len(batch.object_ids), frame_size)
        if shape is None:
            tensors["logits"] = batch.mask_logits
        else:
            bits = backend.empty(shape, "uint8") if batch.bits is None else batch.bits
            self._model.write_bits(batch.mask_logits, frame_size, bits)
            tensors[BITS] = bits
            batch.device_logits = DeviceLogits(backend, batch.mask_logits)
        found = backend.download_block(tensors)
        batch.host_pointer = found["pointer"]
        results = []
        for row, object_id in enumerate(batch.object_ids):
            if batch.device_logits is None:
                source = found["logits"][row, 0]
            else:
                fetch = partial(batch.device_logits.fetch, row)
                source = DeviceMask(found[BITS][row], fetch)
            results.append(
                ObjectResult(
                    object_id=int(object_id),
                    source=source,
                    iou=float(found["iou"][row]),
                    object_score=float(found["object_score"][row]),
                    frame_size=frame_size,
                )
            )
        return results

    def _bits_shape(self, objects: int, frame_size: tuple[int, int]) -> tuple[int, int, int] | None:
        """Return the shape of packed masks; None if the host makes the masks from logits."""
        if self._logits or not self._model.packs_masks(frame_size):
            return None
        height, width = frame_size
        return objects, height, -(-width // PACKED)
