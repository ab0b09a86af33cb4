"""`sam2.sam2_image_predictor`: the original's predictor for single images, on exported graphs."""
# ruff: noqa: FBT001, FBT002 - booleans are positional in the original's signatures

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam2_edge.bundle import Bundle
from sam2_edge.compat.image.encoded_image import EncodedImage, ImageInput
from sam2_edge.compat.model import Sam2Model, open_model, pretrained_model
from sam2_edge.compat.prompts import image_prompt
from sam2_edge.compat.small_regions import remove_small_regions
from sam2_edge.compat.video.masks import Logits
from sam2_edge.compat.video.predictor import SAM2VideoPredictor
from sam2_edge.errors import PromptError
from sam2_edge.runtime.model import clamp_logits
from sam2_edge.runtime.results import full_size

Prediction = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Masks, predicted IoU and logits; see `SAM2ImagePredictor.predict`."""


class SAM2ImagePredictor:
    """Encodes an image once and segments it for any number of prompts.

    Args:
        sam_model: The result of a builder, or a bundle, its folder or its name.
        mask_threshold: Pixels with logits above this are in the mask.
        max_hole_area: Largest area of holes to fill, pixels at the model's own mask resolution.
        max_sprinkle_area: Largest area of islands to remove, likewise.
        **kwargs: Ignored, as in the original.

    Raises:
        BundleError: If a bundle cannot be used.
        BackendError: If the backend is missing or cannot run it.
    """

    def __init__(
        self,
        sam_model: Sam2Model | SAM2VideoPredictor | Bundle | str | Path,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
        **kwargs: Any,  # noqa: ARG002 - the original's signature
    ) -> None:
        if isinstance(sam_model, SAM2VideoPredictor):
            by_stability = sam_model.dynamic_multimask_via_stability
            sam_model = replace(sam_model.model, dynamic_multimask_via_stability=by_stability)
        self.model = sam_model if isinstance(sam_model, Sam2Model) else open_model(sam_model)
        self.mask_threshold = mask_threshold
        self._max_hole_area = max_hole_area
        self._max_sprinkle_area = max_sprinkle_area
        self._images: list[EncodedImage] = []
        self._is_batch = False

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2ImagePredictor:
        """Build a predictor for a published model; also takes the arguments of `build_sam2_hf`."""
        model, options = pretrained_model(model_id, **kwargs)
        return cls(model, **options)

    @property
    def device(self) -> str:
        """Where the graphs run, "cpu" or "cuda"."""
        return "cpu" if self.model.graphs.backend.name == "onnxruntime-cpu" else "cuda"

    def set_image(self, image: ImageInput) -> None:
        """Encode an image, [H, W, 3] uint8 RGB or a Pillow image of mode RGB.

        Raises:
            SourceError: If it is neither.
        """
        self.reset_predictor()
        self._images = [EncodedImage(self.model, image)]

    def set_image_batch(self, image_list: Sequence[ImageInput]) -> None:
        """Encode images for `predict_batch`, each as in `set_image`.

        Raises:
            PromptError: For an empty list.
            SourceError: If one of them is not such an image.
        """
        self.reset_predictor()
        if not image_list:
            raise PromptError("the list of images is empty; give one or more")
        self._images = [EncodedImage(self.model, image) for image in image_list]
        self._is_batch = True

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> Prediction:
        """Segment the image, or as in the original the last one of a batch.

        For B objects, give points, labels, boxes or logits with a leading axis of B.

        Args:
            point_coords: [N, 2] x, y in pixels of the image.
            point_labels: [N], 1 foreground, 0 background.
            box: [4] x1, y1, x2, y2.
            mask_input: [1, s, s] logits of an earlier prediction.
            multimask_output: Whether to return three masks (K = 3) in the model's own order
                instead of the one it chooses.
            return_logits: Whether masks are logits instead of 0 and 1.
            normalize_coords: Whether coordinates are pixels; otherwise they are in 0..1.

        Returns:
            Masks [K, H, W], predicted IoU [K] and logits [K, s, s] clamped to ±32, all float32;
            with a leading axis of B if B is not 1.

        Raises:
            PromptError: For a malformed prompt, or if no image is set.
        """
        self._check_image()
        prompt = (point_coords, point_labels, box, mask_input)
        return self._predict(
            self._images[-1], prompt, multimask_output, return_logits, normalize_coords
        )

    def predict_batch(
        self,
        point_coords_batch: Sequence[ArrayLike | None] | None = None,
        point_labels_batch: Sequence[ArrayLike | None] | None = None,
        box_batch: Sequence[ArrayLike | None] | None = None,
        mask_input_batch: Sequence[ArrayLike | None] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """Return lists of the results of `predict`, with one entry per image of the batch.

        Raises:
            PromptError: For a malformed prompt, a wrong number of them, or without a batch.
        """
        if not self._is_batch:
            raise PromptError("there is no batch of images; call set_image_batch first")
        count = len(self._images)
        batches = [
            [None] * count if batch is None else batch
            for batch in (point_coords_batch, point_labels_batch, box_batch, mask_input_batch)
        ]
        for batch in batches:
            if len(batch) != count:
                raise PromptError(
                    f"{len(batch)} prompts for {count} images; give one per image, None for none"
                )
        predictions = [
            self._predict(image, prompt, multimask_output, return_logits, normalize_coords)
            for image, *prompt in zip(self._images, *batches, strict=True)
        ]
        masks, iou, logits = (list(part) for part in zip(*predictions, strict=True))
        return masks, iou, logits

    def get_image_embedding(self) -> NDArray[np.float32]:
        """Return the embedding [1, C, h, w] of the image, or [B, C, h, w] of a batch.

        Raises:
            PromptError: If no image is set.
        """
        self._check_image()
        return np.concatenate([image.embedding for image in self._images]).view(Logits)

    def reset_predictor(self) -> None:
        """Drop the image or the batch."""
        self._images = []
        self._is_batch = False

    def _check_image(self) -> None:
        if not self._images:
            raise PromptError("there is no image yet; call set_image first")

    def _predict(
        self,
        image: EncodedImage,
        prompt: Sequence[ArrayLike | None],
        multimask: bool,
        return_logits: bool,
        normalize: bool,
    ) -> Prediction:
        size = image.size if normalize else (1, 1)
        rows, previous = image_prompt(*prompt, size=size, geometry=image.geometry)
        logits, iou = image.decode(rows, previous, multimask=multimask)
        masks = np.empty((*iou.shape, *image.size), np.float32)
        for index in np.ndindex(iou.shape):
            cleaned = remove_small_regions(
                logits[index],
                hole_area=self._max_hole_area,
                island_area=self._max_sprinkle_area,
                threshold=self.mask_threshold,
            )
            large = full_size(cleaned, image.size)
            masks[index] = large if return_logits else large > np.float32(self.mask_threshold)
        logits = clamp_logits(logits)
        return (masks[0], iou[0], logits[0]) if len(masks) == 1 else (masks, iou, logits)
