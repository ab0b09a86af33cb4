"""Results of each object on a frame, and their conversion to other formats."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from sam2_edge.bundle.contract import NO_OBJECT_LOGIT
from sam2_edge.errors import Sam2EdgeError

if TYPE_CHECKING:
    import supervision

MAX_MASK_ID = 255
"""The largest object id that fits an indexed mask of 8 bits."""

MASK_LOGIT = 0.0
"""A pixel belongs to the object if its logit is above this."""


class Rle(TypedDict):
    """COCO's compressed run-length encoding; size is [height, width]."""

    size: list[int]
    counts: str


def full_size(logits: NDArray[np.float32], frame_size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize logits [s, s] to a frame's (height, width), bilinear with half-pixel centers."""
    height, width = frame_size
    resized = cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR)
    return cast("NDArray[np.float32]", resized)


@dataclass(frozen=True)
class ObjectResult:
    """One object on one frame.

    Attributes:
        object_id: As in its prompt.
        logits: [S/4, S/4] float32 mask logits over the whole frame; above 0 on the object.
        iou: Predicted IoU of the mask, 0 to 1.
        object_score: Logit; above 0 if the object is present.
        frame_size: Height, width in pixels.
    """

    object_id: int
    logits: NDArray[np.float32]
    iou: float
    object_score: float
    frame_size: tuple[int, int]

    @property
    def present(self) -> bool:
        """Whether the model sees the object on this frame."""
        return self.object_score > 0

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """[H, W] bool at the frame's own size; computed on first access."""
        if self.logits.max() <= NO_OBJECT_LOGIT:
            return np.zeros(self.frame_size, np.bool_)
        return full_size(self.logits, self.frame_size) > MASK_LOGIT

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """x1, y1, x2, y2 around the mask in pixels, x2 and y2 exclusive; None if it is empty."""
        x, y, width, height = cv2.boundingRect(self.mask.view(np.uint8))
        return (x, y, x + width, y + height) if width else None

    def to_rle(self) -> Rle:
        """Encode the mask as COCO RLE."""
        return encode_rle(self.mask)

    def to_polygons(self, tolerance_px: float = 1.0) -> list[NDArray[np.int32]]:
        """Return the outer contours of the mask, without holes, as in COCO's polygons.

        Args:
            tolerance_px: Largest distance by which a contour may be simplified.

        Returns:
            [K, 2] x, y in pixels, one per part.
        """
        contours, _ = cv2.findContours(
            self.mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        polygons = (
            cv2.approxPolyDP(contour, tolerance_px, closed=True).reshape(-1, 2).astype(np.int32)
            for contour in contours
        )
        return [polygon for polygon in polygons if len(polygon) >= 3]


@dataclass(frozen=True)
class FrameResult:
    """Every tracked object on one frame.

    Attributes:
        index: Number of the frame, from 0.
        objects: In the order in which they were added.
        frame_size: Height, width in pixels.
        milliseconds: Processing time of the frame.
    """

    index: int
    objects: tuple[ObjectResult, ...]
    frame_size: tuple[int, int]
    milliseconds: float

    def __getitem__(self, object_id: int) -> ObjectResult:
        for result in self.objects:
            if result.object_id == object_id:
                return result
        raise KeyError(object_id)

    def index_mask(self, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Return a mask [H, W] uint8 of object ids, 0 for none; the higher logit wins.

        Args:
            size: Height, width in pixels; the frame's own by default.

        Raises:
            Sam2EdgeError: For an object id above 255.
        """
        size = size or self.frame_size
        indexed = np.zeros(size, np.uint8)
        best = np.full(size, MASK_LOGIT, np.float32)
        for result in self.objects:
            if result.object_id > MAX_MASK_ID:
                raise Sam2EdgeError(
                    f"object id {result.object_id} does not fit an indexed mask; use ids up to "
                    f"{MAX_MASK_ID}"
                )
            if not result.present:
                continue
            logits = full_size(result.logits, size)
            wins = logits > best
            indexed[wins] = result.object_id
            best[wins] = logits[wins]
        return indexed

    def to_detections(self) -> supervision.Detections:
        """Convert the present objects: boxes, masks, predicted IoU as confidence, tracker ids.

        Raises:
            Sam2EdgeError: If supervision is not installed.
        """
        try:
            import supervision as sv
        except ImportError as error:
            raise Sam2EdgeError(
                "supervision is not installed; install it with: pip install supervision"
            ) from error
        found = [(r, r.box) for r in self.objects if r.present and r.box is not None]
        if not found:
            return sv.Detections.empty()
        return sv.Detections(
            xyxy=np.array([box for _, box in found], np.float32),
            mask=np.stack([r.mask for r, _ in found]),
            confidence=np.array([r.iou for r, _ in found], np.float32),
            tracker_id=np.array([r.object_id for r, _ in found], np.int64),
        )


def encode_rle(mask: NDArray[np.bool_]) -> Rle:
    """Encode a mask [H, W] as COCO RLE."""
    encoded: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    height, width = mask.shape
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def decode_rle(rle: Rle) -> NDArray[np.bool_]:
    """Decode a COCO RLE to a mask [H, W]."""
    return cast("NDArray[np.bool_]", coco_mask.decode(cast("Any", rle)).astype(np.bool_))
