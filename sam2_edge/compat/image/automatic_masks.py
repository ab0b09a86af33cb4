"""`sam2.automatic_mask_generator`: masks of everything on a picture, without a prompt.

A grid of points is asked for, on the picture and if wanted on crops of it; masks that the model
doubts, that are unstable, cut off by a crop or there already are left out. A mask has its full size
only while it is judged; what is kept are its runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import LABEL_FOREGROUND
from sam2_edge.compat.image.candidates import (
    Candidate,
    Rules,
    Sketch,
    candidates,
    without_duplicates,
)
from sam2_edge.compat.image.crops import CropBox, crop_boxes, point_grids
from sam2_edge.compat.image.pictures import Decoded, EncodedPicture, Picture, rgb_pixels
from sam2_edge.compat.image.predictor import SAM2ImagePredictor, published_model
from sam2_edge.compat.image.prompts import prompt_rows
from sam2_edge.compat.image.run_lengths import (
    RunLengths,
    area_of_runs,
    coco_rle_of_runs,
    mask_of_runs,
)
from sam2_edge.compat.model import Sam2Model
from sam2_edge.errors import PromptError, Sam2EdgeError
from sam2_edge.runtime.model import clamp_logits
from sam2_edge.runtime.results import Rle

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


class MaskRecord(TypedDict):
    """One mask, as the original returns it.

    segmentation: [H,W] bool or an RLE, by the output mode. area: pixels. bbox: x, y, width and
    height in pixels; the last two are from the first to the last pixel, one less than the extent.
    point_coords: [[x, y]], the point that was asked for. stability_score: IoU of the masks at a
    higher and a lower threshold. crop_box: x, y, width, height.
    """

    segmentation: NDArray[np.bool_] | RunLengths | Rle
    area: int
    bbox: list[float]
    predicted_iou: float
    point_coords: list[list[float]]
    stability_score: float
    crop_box: list[float]


class SAM2AutomaticMaskGenerator:
    """Finds the masks of everything on a picture.

    model: what `build_sam2` returns, or a bundle: its folder, its name, or a loaded one.
    points_per_side: points of the grid along a side; or point_grids: a grid [K,2] of x,y in 0..1
    for the picture and for every layer of crops. points_per_batch: prompts that are decoded
    together, which bounds memory. pred_iou_thresh, stability_score_thresh: least predicted IoU and
    least stability, the IoU of the masks at `mask_threshold` plus and minus
    stability_score_offset. box_nms_thresh: largest IoU of the boxes of two masks of one crop.
    crop_n_layers: layers of crops, 2^n x 2^n in layer n, that overlap by crop_overlap_ratio;
    crop_nms_thresh: the same as box_nms_thresh, of different crops;
    crop_n_points_downscale_factor: how much sparser the grid is in every further layer.
    min_mask_region_area: holes of up to so many pixels of the model's own resolution are filled,
    and islands removed. output_mode: "binary_mask", "uncompressed_rle" or "coco_rle". use_m2m:
    every mask is given to the model again to refine. multimask_output: three masks for every point
    instead of the one that the model chooses. Other arguments are ignored, as the original ignores
    them.

    Raises PromptError for points that are none, Sam2EdgeError for other bad values, BundleError or
    BackendError when a bundle cannot be used.
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
        use_m2m: bool = False,  # noqa: FBT001, FBT002 # the original's signature
        multimask_output: bool = True,  # noqa: FBT001, FBT002
        **kwargs: Any,  # noqa: ARG002 # the original's signature
    ) -> None:
        if output_mode not in OUTPUT_MODES:
            raise Sam2EdgeError(
                f"output_mode is {output_mode!r}; choose one of {', '.join(OUTPUT_MODES)}"
            )
        for name, value, least in (
            ("points_per_batch", points_per_batch, 1),
            ("crop_n_layers", crop_n_layers, 0),
        ):
            if value < least:
                raise Sam2EdgeError(f"{name} is {value}; give {least} or more")
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
        self.crop_n_points_downscale_factor = crop_n_points_downscale_factor
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self.use_m2m = use_m2m
        self.multimask_output = multimask_output

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2AutomaticMaskGenerator:
        """A generator for a published model; see `build_sam2_hf`, which takes the arguments too."""
        model, rest = published_model(model_id, kwargs)
        return cls(model, **rest)

    def generate(self, image: Picture) -> list[MaskRecord]:
        """A record for every mask on a picture, [H,W,3] uint8 RGB.

        By predicted IoU, best first; with crops, those of smaller crops come first.

        Raises SourceError when it is no such picture.
        """
        pixels = rgb_pixels(image)
        size = (pixels.shape[0], pixels.shape[1])
        boxes = crop_boxes(size, self.crop_n_layers, self.crop_overlap_ratio)
        found = [c for layer, crop in boxes for c in self._of_crop(pixels, crop, layer)]
        if len(boxes) > 1:
            scores = [1 / _area(candidate.crop) for candidate in found]
            found = without_duplicates(found, scores, self.crop_nms_thresh)
        return [self._record(candidate) for candidate in found]

    def _of_crop(self, pixels: NDArray[np.uint8], crop: CropBox, layer: int) -> list[Candidate]:
        """The masks of one crop of a picture, best first."""
        left, top, right, bottom = crop
        picture = EncodedPicture(self.predictor.model, pixels[top:bottom, left:right])
        height, width = picture.size
        points = (self.point_grids[layer] * (width, height)).astype(np.float32)
        sketches = (
            sketch
            for start in range(0, len(points), self.points_per_batch)
            for sketch in self._sketches(picture, points[start : start + self.points_per_batch])
        )
        size = (pixels.shape[0], pixels.shape[1])
        found = list(candidates(sketches, self._rules(), crop=crop, size=size))
        return without_duplicates(found, [c.iou for c in found], self.box_nms_thresh)

    def _sketches(self, picture: EncodedPicture, points: NDArray[np.float32]) -> Iterator[Sketch]:
        """What the model makes of points [K,2] in pixels of a picture."""
        decoded = _decode_points(picture, points, multimask=self.multimask_output)
        points = np.repeat(points, decoded.iou.shape[1], axis=0)
        if self.use_m2m:
            decoded = self._refined(picture, points, decoded)
        side = decoded.logits.shape[-1]
        logits, iou = decoded.logits.reshape(-1, side, side), decoded.iou.ravel()
        for row, point in enumerate(points):
            yield Sketch(logits[row], iou[row], point)

    def _refined(
        self, picture: EncodedPicture, points: NDArray[np.float32], decoded: Decoded
    ) -> Decoded:
        """Masks decoded once more, from their point and their own logits."""
        side = decoded.logits.shape[-1]
        previous = clamp_logits(decoded.logits).reshape(-1, 1, side, side)
        turns = [
            slice(start, start + self.points_per_batch)
            for start in range(0, len(points), self.points_per_batch)
        ]
        parts = [
            _decode_points(picture, points[turn], mask_input=previous[turn], multimask=False)
            for turn in turns
        ]
        return Decoded(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.iou for part in parts]),
        )

    def _rules(self) -> Rules:
        return Rules(
            least_iou=self.pred_iou_thresh,
            least_stability=self.stability_score_thresh,
            stability_offset=self.stability_score_offset,
            mask_threshold=self.mask_threshold,
            region_area=self.min_mask_region_area,
        )

    def _record(self, found: Candidate) -> MaskRecord:
        segmentation: NDArray[np.bool_] | RunLengths | Rle = found.runs
        if self.output_mode == "binary_mask":
            segmentation = mask_of_runs(found.runs)
        elif self.output_mode == "coco_rle":
            segmentation = coco_rle_of_runs(found.runs)
        return {
            "segmentation": segmentation,
            "area": area_of_runs(found.runs),
            "bbox": _corner_and_size(found.box),
            "predicted_iou": float(found.iou),
            "point_coords": [found.point.tolist()],
            "stability_score": float(found.stability),
            "crop_box": _corner_and_size(found.crop),
        }


def _decode_points(
    picture: EncodedPicture,
    points: NDArray[np.float32],
    *,
    multimask: bool,
    mask_input: NDArray[np.float32] | None = None,
) -> Decoded:
    """Every point [K,2] as a prompt of its own."""
    labels = np.full((len(points), 1), LABEL_FOREGROUND)
    prompts = prompt_rows(
        points[:, None], labels, None, mask_input, size=picture.size, geometry=picture.geometry
    )
    return picture.decode(prompts, multimask=multimask)


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
            f"{len(grids)} grids for the picture and {layers} layers of crops; give {layers + 1}"
        )
    return grids


def _area(crop: CropBox) -> int:
    left, top, right, bottom = crop
    return (right - left) * (bottom - top)


def _corner_and_size(box: Sequence[int] | NDArray[np.float32]) -> list[float]:
    """x1, y1, x2, y2 as x, y, width, height."""
    left, top, right, bottom = (float(value) for value in box)
    return [left, top, right - left, bottom - top]
