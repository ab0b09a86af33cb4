"""Results: what is known of each object on a frame, and conversions to other formats."""

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
"""The largest object id that an indexed mask of 8 bits holds."""

MASK_LOGIT = 0.0
"""A pixel belongs to the object where its logit is above this."""


class Rle(TypedDict):
    """COCO's compressed run-length encoding; size is [height, width]."""

    size: list[int]
    counts: str


def full_size(logits: NDArray[np.float32], frame_size: tuple[int, int]) -> NDArray[np.float32]:
    """Logits [s,s] at a frame's (height, width), bilinear with half-pixel centers as SAM 2 does."""
    height, width = frame_size
    resized = cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR)
    return cast("NDArray[np.float32]", resized)


def mask_of(logits: NDArray[np.float32], frame_size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask [H,W] bool of logits [s,s] at a frame's (height, width)."""
    if logits.max() <= NO_OBJECT_LOGIT:
        return np.zeros(frame_size, np.bool_)
    return full_size(logits, frame_size) > MASK_LOGIT


@dataclass(frozen=True)
class ObjectResult:
    """One object on one frame.

    logits: [S/4,S/4] float32 over the whole frame; above 0 is the object. iou: the model's own
    estimate of its mask's IoU, 0..1. object_score: logit; above 0 the object is present.
    frame_size: height, width in pixels.
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
        """[H,W] bool at the frame's own size; computed when first asked for."""
        return mask_of(self.logits, self.frame_size)

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """x1, y1, x2, y2 around the mask in pixels, x2 and y2 exclusive; None if it is empty."""
        rows = np.flatnonzero(self.mask.any(axis=1))
        if rows.size == 0:
            return None
        columns = np.flatnonzero(self.mask.any(axis=0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def to_rle(self) -> Rle:
        """The mask as COCO RLE."""
        return encode_rle(self.mask)

    def to_polygons(self, tolerance_px: float = 1.0) -> list[NDArray[np.int32]]:
        """Outer contours [K,2] of x,y in pixels, simplified by at most `tolerance_px`."""
        return mask_polygons(self.mask, tolerance_px)


@dataclass(frozen=True)
class FrameResult:
    """Every tracked object on one frame.

    index: number of the frame, from 0. milliseconds: time spent on it.
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
        """[H,W] uint8 of object ids, 0 for none; where masks overlap the higher logit wins.

        size: height, width in pixels; the frame's own if left out.

        Raises Sam2EdgeError for an object id above 255.
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
        """Present objects as `supervision.Detections` (boxes, masks, predicted IoU, tracker ids).

        Raises Sam2EdgeError when supervision is not installed.
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
    """A mask [H,W] as COCO RLE."""
    encoded: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    height, width = mask.shape
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def decode_rle(rle: Rle) -> NDArray[np.bool_]:
    """The mask [H,W] that a COCO RLE holds."""
    counts = rle["counts"].encode("ascii")
    decoded = coco_mask.decode({"size": rle["size"], "counts": counts})
    return cast("NDArray[np.bool_]", decoded.astype(np.bool_))


def mask_polygons(mask: NDArray[np.bool_], tolerance_px: float) -> list[NDArray[np.int32]]:
    """Outer contours [K,2] of a mask [H,W]; holes are left out, as in COCO's polygons."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    simplified = (cv2.approxPolyDP(c, tolerance_px, closed=True) for c in contours)
    polygons = [cast("NDArray[np.int32]", c.reshape(-1, 2).astype(np.int32)) for c in simplified]
    return [p for p in polygons if len(p) >= 3]
