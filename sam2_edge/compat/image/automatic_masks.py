"""`sam2.automatic_mask_generator`: masks of everything in an image, without a prompt.

The model is prompted with a grid of points, on the image and optionally on crops of it. Masks that
are uncertain, unstable, cut off by a crop or duplicates are dropped.
"""
# ruff: noqa: FBT001, FBT002 - booleans are positional in the original's signatures

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco_mask

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import LABEL_FOREGROUND
from sam2_edge.compat.image.candidates import (
    Candidate,
    CropBox,
    UncompressedRle,
    crop_boxes,
    pixel_bounds,
    point_grids,
    stability_score,
    suppress_duplicates,
    touches_crop_edge,
    uncompressed_rle,
)
from sam2_edge.compat.image.encoded_image import EncodedImage, ImageInput, rgb_pixels
from sam2_edge.compat.image.predictor import SAM2ImagePredictor
from sam2_edge.compat.model import Sam2Model, pretrained_model
from sam2_edge.compat.prompts import image_prompt
from sam2_edge.compat.small_regions import remove_small_regions
from sam2_edge.errors import PromptError, Sam2EdgeError
from sam2_edge.runtime.model import clamp_logits
from sam2_edge.runtime.results import Rle, decode_rle, encode_rle, full_size

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


class MaskRecord(TypedDict):
    """One mask, as the original returns it.

    Attributes:
        segmentation: [H, W] bool or an RLE, by the output mode.
        area: Pixels.
        bbox: x, y, width, height in pixels, width and height one less than the mask's extent.
        predicted_iou: 0 to 1.
        point_coords: [[x, y]], the prompt.
        stability_score: See `stability_score`.
        crop_box: x, y, width, height.
    """

    segmentation: NDArray[np.bool_] | UncompressedRle | Rle
    area: int
    bbox: list[float]
    predicted_iou: float
    point_coords: list[list[float]]
    stability_score: float
    crop_box: list[float]


class SAM2AutomaticMaskGenerator:
    """Finds masks of everything in an image.

    Args:
        model: The result of `build_sam2`, or a bundle, its folder or its name.
        points_per_side: Points of the grid along a side.
        points_per_batch: Prompts that are decoded together, which bounds memory.
        pred_iou_thresh: Lowest predicted IoU.
        stability_score_thresh: Lowest stability, the IoU of the masks at two thresholds.
        stability_score_offset: Distance of these thresholds from `mask_threshold`.
        mask_threshold: Pixels with logits above this are in the mask.
        box_nms_thresh: Highest IoU of the boxes of two masks of one crop.
        crop_n_layers: Layers of crops; layer n has 2^n x 2^n.
        crop_nms_thresh: Highest IoU of the boxes of two masks of different crops.
        crop_overlap_ratio: Overlap of crops as a share of the image's shorter side.
        crop_n_points_downscale_factor: Reduction of points per side from layer to layer.
        point_grids: Instead of `points_per_side`: [K, 2] x, y in 0..1 for the image and for each
            layer of crops.
        min_mask_region_area: Largest area of holes to fill and islands to remove, pixels at the
            model's own mask resolution.
        output_mode: "binary_mask", "uncompressed_rle" or "coco_rle".
        use_m2m: Whether to feed each mask back to the model once, to refine it.
        multimask_output: Whether to take three masks per point instead of the one that the model
            chooses.
        **kwargs: Ignored, as in the original.

    Raises:
        PromptError: For a malformed grid.
        Sam2EdgeError: For other invalid arguments.
        BundleError: If a bundle cannot be used.
        BackendError: If the backend is missing or cannot run it.
    """

    def __init__(
        self,
        model: Sam2Model | Bundle | str | Path,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.8,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        mask_threshold: float = 0.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[ArrayLike] | None = None,
        min_mask_region_area: int = 0,
        output_mode: str = "binary_mask",
        use_m2m: bool = False,
        multimask_output: bool = True,
        **kwargs: Any,  # noqa: ARG002 - the original's signature
    ) -> None:
        if output_mode not in OUTPUT_MODES:
            raise Sam2EdgeError(
                f"output_mode is {output_mode!r}; choose one of {', '.join(OUTPUT_MODES)}"
            )
        for name, value, minimum in (
            ("points_per_batch", points_per_batch, 1),
            ("crop_n_layers", crop_n_layers, 0),
        ):
            if value < minimum:
                raise Sam2EdgeError(f"{name} is {value}; give {minimum} or more")
        self.point_grids = _grids(
            points_per_side, point_grids, crop_n_layers, crop_n_points_downscale_factor
        )
        self.predictor = SAM2ImagePredictor(
            model, max_hole_area=min_mask_region_area, max_sprinkle_area=min_mask_region_area
        )
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.mask_threshold = mask_threshold
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self.use_m2m = use_m2m
        self.multimask_output = multimask_output

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2AutomaticMaskGenerator:
        """Build a generator for a published model; also takes the arguments of `build_sam2_hf`."""
        model, options = pretrained_model(model_id, **kwargs)
        return cls(model, **options)

    def generate(self, image: ImageInput) -> list[MaskRecord]:
        """Return a record for every mask in an image, [H, W, 3] uint8 RGB.

        Records are sorted by predicted IoU, best first; masks of smaller crops come first.

        Raises:
            SourceError: If it is not such an image.
        """
        pixels = rgb_pixels(image)
        size = (pixels.shape[0], pixels.shape[1])
        crops = crop_boxes(size, self.crop_n_layers, self.crop_overlap_ratio)
        found = [c for layer, crop in crops for c in self._crop_candidates(pixels, crop, layer)]
        if len(crops) > 1:
            scores = [1 / _area(candidate.crop) for candidate in found]
            found = suppress_duplicates(found, scores, self.crop_nms_thresh)
        return [self._record(candidate) for candidate in found]

    def _crop_candidates(
        self, pixels: NDArray[np.uint8], crop: CropBox, layer: int
    ) -> list[Candidate]:
        """Find the masks of one crop, best first."""
        left, top, right, bottom = crop
        image = EncodedImage(self.predictor.model, pixels[top:bottom, left:right])
        height, width = image.size
        points = (self.point_grids[layer] * (width, height)).astype(np.float32)
        size = (pixels.shape[0], pixels.shape[1])
        proposals = (
            self._candidate(*proposal, crop=crop, size=size)
            for batch in self._batches(len(points))
            for proposal in self._proposals(image, points[batch])
        )
        found = [candidate for candidate in proposals if candidate is not None]
        return suppress_duplicates(found, [c.iou for c in found], self.box_nms_thresh)

    def _batches(self, count: int) -> list[slice]:
        step = self.points_per_batch
        return [slice(start, start + step) for start in range(0, count, step)]

    def _proposals(
        self, image: EncodedImage, points: NDArray[np.float32]
    ) -> Iterator[tuple[NDArray[np.float32], np.float32, NDArray[np.float32]]]:
        """Yield logits [s, s], predicted IoU and point [2] of each mask at points [K, 2]."""
        logits, iou = _decode_points(image, points, None, multimask=self.multimask_output)
        points = np.repeat(points, iou.shape[1], axis=0)
        side = logits.shape[-1]
        if self.use_m2m:
            previous = clamp_logits(logits).reshape(-1, 1, side, side)
            refined = [
                _decode_points(image, points[batch], previous[batch], multimask=False)
                for batch in self._batches(len(points))
            ]
            logits, iou = (np.concatenate(arrays) for arrays in zip(*refined, strict=True))
        yield from zip(logits.reshape(-1, side, side), iou.ravel(), points, strict=True)

    def _candidate(
        self,
        logits: NDArray[np.float32],
        iou: np.float32,
        point: NDArray[np.float32],
        *,
        crop: CropBox,
        size: tuple[int, int],
    ) -> Candidate | None:
        """Return a mask of a crop of an image of (height, width) if it passes the filters."""
        if self.pred_iou_thresh > 0 and not iou > np.float32(self.pred_iou_thresh):
            return None
        left, top, right, bottom = crop
        area = self.min_mask_region_area
        cleaned = remove_small_regions(logits, hole_area=area, island_area=area)
        large = full_size(cleaned, (bottom - top, right - left))
        stability = stability_score(large, self.mask_threshold, self.stability_score_offset)
        required = np.float32(self.stability_score_thresh)
        if required > 0 and not stability >= required:
            return None
        mask = large > np.float32(self.mask_threshold)
        box = pixel_bounds(mask) + np.array([left, top, left, top], np.float32)
        if touches_crop_edge(box, crop, size):
            return None
        whole = np.zeros(size, np.bool_)
        whole[top:bottom, left:right] = mask
        point = point + np.array([left, top], np.float32)
        return Candidate(encode_rle(whole), box, point, iou, stability, crop)

    def _record(self, candidate: Candidate) -> MaskRecord:
        segmentation: NDArray[np.bool_] | UncompressedRle | Rle = candidate.rle
        if self.output_mode == "binary_mask":
            segmentation = decode_rle(candidate.rle)
        elif self.output_mode == "uncompressed_rle":
            segmentation = uncompressed_rle(decode_rle(candidate.rle))
        return {
            "segmentation": segmentation,
            "area": int(coco_mask.area(cast("Any", candidate.rle))),
            "bbox": _corner_and_size(candidate.box),
            "predicted_iou": float(candidate.iou),
            "point_coords": [candidate.point.tolist()],
            "stability_score": float(candidate.stability),
            "crop_box": _corner_and_size(candidate.crop),
        }


def _decode_points(
    image: EncodedImage,
    points: NDArray[np.float32],
    mask_input: NDArray[np.float32] | None,
    *,
    multimask: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Decode points [K, 2], each as a prompt of its own."""
    labels = np.full((len(points), 1), LABEL_FOREGROUND)
    prompt, mask_input = image_prompt(
        points[:, None], labels, None, mask_input, size=image.size, geometry=image.geometry
    )
    return image.decode(prompt, mask_input, multimask=multimask)


def _grids(
    per_side: int | None, given: Sequence[ArrayLike] | None, layers: int, downscale: int
) -> list[NDArray[np.float64]]:
    if (per_side is None) == (given is None):
        raise PromptError("give either points_per_side or point_grids, and None for the other")
    if per_side is not None:
        return point_grids(per_side, layers, downscale)
    assert given is not None  # one of the two is
    grids = [np.asarray(grid, np.float64) for grid in given]
    for grid in grids:
        if grid.ndim != 2 or grid.shape[1] != 2 or not len(grid):
            raise PromptError(f"a grid of shape {grid.shape}; give [K, 2] of x, y in 0..1")
    if len(grids) <= layers:
        raise PromptError(
            f"{len(grids)} grids for the image and {layers} layers of crops; give {layers + 1}"
        )
    return grids


def _area(crop: CropBox) -> int:
    left, top, right, bottom = crop
    return (right - left) * (bottom - top)


def _corner_and_size(box: Sequence[int] | NDArray[np.float32]) -> list[float]:
    """Convert x1, y1, x2, y2 to x, y, width, height."""
    left, top, right, bottom = (float(value) for value in box)
    return [left, top, right - left, bottom - top]
