"""Results of each object on a frame, and their conversion to other formats."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from sam2_edge.bundle.contract import NO_OBJECT_LOGIT
from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.mask_bits import packed_area, packed_box, unpack_masks
from sam2_edge.runtime.short_repr import short_repr

if TYPE_CHECKING:
    import supervision

MAX_MASK_ID = 254
"""The largest object id in an indexed mask of 8 bits: evaluators take 255 for no object."""

MAX_RLE_PIXELS = 2**28

_MAX_GROUPS = 6
"""Characters of a number in compressed counts; 30 bits hold every run of `MAX_RLE_PIXELS`."""

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


@dataclass(frozen=True, slots=True)
class DeviceMask:
    """A mask that was made on a GPU.

    Attributes:
        bits: [H, ceil(W / 8)] uint8, packed as by `numpy.packbits`.
        fetch_logits: Copies its logits [S/4, S/4] from the device while they are there.
    """

    bits: NDArray[np.uint8]
    fetch_logits: Callable[[], NDArray[np.float32]] = field(repr=False)

    __repr__ = short_repr


@dataclass(frozen=True)
class ObjectResult:
    """One object on one frame.

    Attributes:
        object_id: As in its prompt.
        source: [S/4, S/4] float32 logits, or the mask as it comes from a GPU.
        iou: Predicted IoU of the mask, 0 to 1.
        object_score: Logit; above 0 if the object is present.
        frame_size: Height, width in pixels.
    """

    object_id: int
    source: NDArray[np.float32] | DeviceMask
    iou: float
    object_score: float
    frame_size: tuple[int, int]

    __repr__ = short_repr

    @property
    def present(self) -> bool:
        """Whether the model sees the object on this frame."""
        return self.object_score > 0

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """[S/4, S/4] float32 mask logits over the whole frame; above 0 on the object.

        On a GPU they are copied on first access, which must come before the next frame is tracked
        and in the same thread, unless the tracker was opened with `logits=True`.

        Raises:
            Sam2EdgeError: They are no longer on the GPU, or this is another thread.
        """
        return self.source.fetch_logits() if isinstance(self.source, DeviceMask) else self.source

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """[H, W] bool at the frame's own size; computed on first access."""
        if isinstance(self.source, DeviceMask):
            return unpack_masks(self.source.bits, self.frame_size[1])
        if self.logits.max() <= NO_OBJECT_LOGIT:
            return np.zeros(self.frame_size, np.bool_)
        return full_size(self.logits, self.frame_size) > MASK_LOGIT

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """x1, y1, x2, y2 around the mask in pixels, x2 and y2 exclusive; None if it is empty."""
        bits = self._packed
        if bits is not None:
            return packed_box(bits)
        x, y, width, height = cv2.boundingRect(self.mask.view(np.uint8))
        return (x, y, x + width, y + height) if width else None

    @property
    def area(self) -> int:
        """Number of pixels of the mask."""
        bits = self._packed
        return cv2.countNonZero(self.mask.view(np.uint8)) if bits is None else packed_area(bits)

    @property
    def centroid(self) -> tuple[float, float] | None:
        """Mean x, y of the mask's pixels, whose centers are whole numbers; None if it is empty."""
        box = self.box
        if box is None:
            return None
        x1, y1, x2, y2 = box
        inside = np.ascontiguousarray(self.mask[y1:y2, x1:x2]).view(np.uint8)
        moments = cv2.moments(inside, binaryImage=True)
        return x1 + moments["m10"] / moments["m00"], y1 + moments["m01"] / moments["m00"]

    @property
    def _packed(self) -> NDArray[np.uint8] | None:
        """The mask as bits, unless there is an array, which its owner may have modified."""
        if "mask" in self.__dict__ or not isinstance(self.source, DeviceMask):
            return None
        return self.source.bits

    def to_rle(self) -> Rle:
        """Encode the mask as COCO RLE."""
        return encode_rle(self.mask)

    def to_polygons(self, tolerance_px: float = 1.0) -> list[NDArray[np.int32]]:
        """Return the outer contours of the mask, without holes, through the centers of its pixels.

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
        names: Names of the objects that have one, by id.
    """

    index: int
    objects: tuple[ObjectResult, ...]
    frame_size: tuple[int, int]
    milliseconds: float
    names: Mapping[int, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        ids: dict[str, list[int]] = {"present": [], "absent": []}
        for entry in self.objects:
            ids["present" if entry.present else "absent"].append(entry.object_id)
        return (
            f"FrameResult(index={self.index}, present={ids['present']}, absent={ids['absent']}, "
            f"frame_size={self.frame_size}, milliseconds={self.milliseconds:.1f})"
        )

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
            Sam2EdgeError: For an object id above `MAX_MASK_ID`.
        """
        size = size or self.frame_size
        for result in self.objects:
            if result.object_id > MAX_MASK_ID:
                raise Sam2EdgeError(
                    f"object id {result.object_id} does not fit an indexed mask; use ids up to "
                    f"{MAX_MASK_ID}"
                )
        indexed = np.zeros(size, np.uint8)
        present = [result for result in self.objects if result.present]
        if len(present) == 1 and size == self.frame_size:
            indexed[present[0].mask] = present[0].object_id
            return indexed
        best = np.full(size, MASK_LOGIT, np.float32)
        for result in present:
            logits = full_size(result.logits, size)
            wins = logits > best
            indexed[wins] = result.object_id
            best[wins] = logits[wins]
        return indexed

    def to_detections(self) -> supervision.Detections:
        """Convert the present objects; predicted IoU is the confidence.

        The object id is the tracker id, and also the class id, by which annotators choose colors.
        As in `supervision.mask_to_xyxy`, the second corner of a box is the last pixel of the mask,
        one less than in `ObjectResult.box`.

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
        ids = np.array([r.object_id for r, _ in found], np.int64)
        boxes = np.array([box for _, box in found], np.float32).reshape(-1, 4)
        return sv.Detections(
            xyxy=boxes - np.array([0, 0, 1, 1], np.float32),
            mask=np.array([r.mask for r, _ in found], np.bool_).reshape(-1, *self.frame_size),
            confidence=np.array([r.iou for r, _ in found], np.float32),
            class_id=ids,
            tracker_id=ids.copy(),
        )


def encode_rle(mask: NDArray[np.bool_]) -> Rle:
    """Encode a mask [H, W] as COCO RLE."""
    # The columns must be contiguous; OpenCV turns them faster than NumPy.
    turned = cv2.transpose(np.array(mask, np.uint8, order="C")).T
    encoded: dict[str, Any] = coco_mask.encode(turned)
    height, width = mask.shape
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def decode_rle(rle: Any) -> NDArray[np.bool_]:
    """Decode a COCO RLE to a mask [H, W].

    Args:
        rle: An `Rle`; its counts may also be bytes, or the numbers of an uncompressed one.

    Raises:
        Sam2EdgeError: If size or counts are malformed, or the counts do not add up to the size.
    """
    try:
        height, width = (operator.index(side) for side in rle["size"])
        counts = rle["counts"]
    except (KeyError, TypeError, ValueError) as error:
        raise Sam2EdgeError(
            "an RLE without size and counts; give {'size': [height, width], 'counts': ...}"
        ) from error
    pixels = height * width
    if min(height, width) < 1 or pixels > MAX_RLE_PIXELS:
        raise Sam2EdgeError(f"an RLE without pixels or with more than {MAX_RLE_PIXELS}")
    runs = _runs(counts, pixels)
    if runs is None or runs.min() < 0 or runs.max() > pixels or runs.sum() != pixels:
        raise Sam2EdgeError(
            f"an RLE whose counts do not encode {height} x {width} pixels; encode the mask again"
        )
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def _runs(counts: Any, pixels: int) -> NDArray[np.int64] | None:
    """Return the lengths of the runs, which may be wrong; None if counts are malformed.

    pycocotools checks nothing: hostile counts make it write outside of its memory.
    """
    try:
        if isinstance(counts, str):
            counts = counts.encode("ascii")
        if isinstance(counts, bytes):
            codes = np.frombuffer(counts, np.uint8).astype(np.int64) - ord("0")
            return _decompressed(codes) if codes.size <= _MAX_GROUPS * (pixels + 1) else None
        runs = np.asarray(counts)
    except ValueError:  # characters that are not ASCII, or lists of different lengths
        return None
    return runs.astype(np.int64) if runs.ndim == 1 and runs.dtype.kind in "iu" else None


def _decompressed(codes: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the numbers in groups of 6 bits of COCO's compressed counts; None if malformed.

    Bit 5 means that more of the number follows, 5 bits each, lowest first; bit 4 of the last group
    is the sign. From the fourth number on, each is the difference to the run two before it.
    """
    last = codes & 0x20 == 0
    if not codes.size or codes.min() < 0 or codes.max() > 63 or not last[-1]:
        return None
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    places = np.arange(codes.size) - np.repeat(starts, np.diff([*starts, codes.size]))
    if places.max() >= _MAX_GROUPS:
        return None
    numbers = np.add.reduceat((codes & 0x1F) << (5 * places), starts)
    negative = codes[last] & 0x10 != 0
    numbers -= negative.astype(np.int64) << (5 * (places[last] + 1))
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
