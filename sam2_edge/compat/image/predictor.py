"""`sam2.sam2_image_predictor`: the original's predictor for still pictures, on exported graphs."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam2_edge.bundle import Bundle
from sam2_edge.compat.build import build_sam2, build_sam2_hf
from sam2_edge.compat.image.pictures import Decoded, EncodedPicture, Picture
from sam2_edge.compat.image.prompts import Prompts, prompt_rows
from sam2_edge.compat.image.small_regions import without_small_regions
from sam2_edge.compat.model import Sam2Model, open_model
from sam2_edge.compat.video.predictor import SAM2VideoPredictor
from sam2_edge.errors import PromptError
from sam2_edge.runtime.model import clamp_logits
from sam2_edge.runtime.results import full_size

Prediction = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Masks, predicted IoU and logits; see `SAM2ImagePredictor.predict`."""


class SAM2ImagePredictor:
    """Prompts a picture as often as wanted once it is set.

    sam_model: what `build_sam2` or `build_sam2_video_predictor` returns, or a bundle: its folder,
    its name, or a loaded one.
    mask_threshold: a pixel belongs to the mask where its logit is above this. max_hole_area: holes
    of up to so many pixels are filled, max_sprinkle_area: islands of up to so many are removed, in
    masks of the model's own resolution. Other arguments are ignored, as the original ignores them.

    Raises BundleError or BackendError when a bundle cannot be used.
    """

    def __init__(
        self,
        sam_model: Sam2Model | SAM2VideoPredictor | Bundle | str | Path,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
        **kwargs: Any,  # noqa: ARG002 # the original's signature
    ) -> None:
        self.model = _model(sam_model)
        self.mask_threshold = mask_threshold
        self._max_hole_area = max_hole_area
        self._max_sprinkle_area = max_sprinkle_area
        self._pictures: list[EncodedPicture] = []
        self._is_batch = False

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2ImagePredictor:
        """A predictor for a published model; see `build_sam2_hf`, which takes the arguments too."""
        model, rest = published_model(model_id, kwargs)
        return cls(model, **rest)

    @property
    def device(self) -> str:
        """Where the graphs run, "cpu" or "cuda"."""
        return "cpu" if self.model.graphs.backend.name == "onnxruntime-cpu" else "cuda"

    def set_image(self, image: Picture) -> None:
        """Encode a picture: [H,W,3] uint8 RGB, or a Pillow image of mode RGB.

        Raises SourceError when it is neither.
        """
        self.reset_predictor()
        self._pictures = [EncodedPicture(self.model, image)]

    def set_image_batch(self, image_list: list[NDArray[np.uint8]]) -> None:
        """Encode pictures, [H,W,3] uint8 RGB each, for `predict_batch`.

        Raises PromptError for an empty list, SourceError for what is no picture.
        """
        self.reset_predictor()
        if not image_list:
            raise PromptError("the list of pictures is empty; give one or more")
        self._pictures = [EncodedPicture(self.model, image) for image in image_list]
        self._is_batch = True

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,  # noqa: FBT001, FBT002 # the original's signature
        return_logits: bool = False,  # noqa: FBT001, FBT002
        normalize_coords: bool = True,  # noqa: FBT001, FBT002
    ) -> Prediction:
        """Masks [K,H,W], their predicted IoU [K] and logits [K,s,s] within ±32, all float32.

        point_coords: [N,2] x,y in pixels of the picture. point_labels: [N], 1 foreground, 0
        background. box: x1,y1,x2,y2. mask_input: [1,s,s] logits of an earlier prediction. With
        prompts of B objects, [B,N,2] points, [B,N] labels, [B,4] boxes or [B,1,s,s] logits, every
        result has an axis B in front, unless B is 1. multimask_output: three masks in the model's
        own order (K is 3), otherwise the one it chooses. return_logits: masks are logits instead of
        0 and 1. normalize_coords: otherwise coordinates are in 0..1.

        After `set_image_batch` this is the last picture of the batch, as in the original.

        Raises PromptError for a bad prompt, or when no picture is set.
        """
        if not self._pictures:
            raise PromptError("there is no picture yet; call set_image first")
        picture = self._pictures[-1]
        prompts = prompt_rows(
            point_coords,
            point_labels,
            box,
            mask_input,
            size=picture.size if normalize_coords else (1, 1),
            geometry=picture.geometry,
        )
        return self._predict(picture, prompts, multimask=multimask_output, logits=return_logits)

    def predict_batch(
        self,
        point_coords_batch: Sequence[ArrayLike | None] | None = None,
        point_labels_batch: Sequence[ArrayLike | None] | None = None,
        box_batch: Sequence[ArrayLike | None] | None = None,
        mask_input_batch: Sequence[ArrayLike | None] | None = None,
        multimask_output: bool = True,  # noqa: FBT001, FBT002 # the original's signature
        return_logits: bool = False,  # noqa: FBT001, FBT002
        normalize_coords: bool = True,  # noqa: FBT001, FBT002
    ) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """Lists of what `predict` returns, one entry for every picture of `set_image_batch`.

        Raises PromptError for a bad prompt, too few of them, or when no batch is set.
        """
        if not self._is_batch:
            raise PromptError("there is no batch of pictures; call set_image_batch first")
        given = (point_coords_batch, point_labels_batch, box_batch, mask_input_batch)
        predictions: list[Prediction] = []
        for index, picture in enumerate(self._pictures):
            prompts = prompt_rows(
                *(_entry(batch, index, len(self._pictures)) for batch in given),
                size=picture.size if normalize_coords else (1, 1),
                geometry=picture.geometry,
            )
            predictions.append(
                self._predict(picture, prompts, multimask=multimask_output, logits=return_logits)
            )
        masks, iou, logits = (list(part) for part in zip(*predictions, strict=True))
        return masks, iou, logits

    def get_image_embedding(self) -> NDArray[np.float32]:
        """The embedding [1,C,h,w] of the picture, or [B,C,h,w] of a batch.

        Raises PromptError when no picture is set.
        """
        if not self._pictures:
            raise PromptError("there is no picture yet; call set_image first")
        return np.concatenate([picture.embedding for picture in self._pictures])

    def reset_predictor(self) -> None:
        """Forget the picture or the batch."""
        self._pictures = []
        self._is_batch = False

    def _predict(
        self, picture: EncodedPicture, prompts: Prompts, *, multimask: bool, logits: bool
    ) -> Prediction:
        decoded = picture.decode(prompts, multimask=multimask)
        masks = np.empty((*decoded.iou.shape, *picture.size), np.float32)
        for index in np.ndindex(decoded.iou.shape):
            large = self._full_logits(decoded.logits[index], picture.size)
            masks[index] = large if logits else large > np.float32(self.mask_threshold)
        return _squeezed(masks, decoded)

    def _full_logits(
        self, logits: NDArray[np.float32], size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Logits [s,s] without small regions, at a picture's (height, width)."""
        tidy = without_small_regions(
            logits,
            threshold=self.mask_threshold,
            hole_area=self._max_hole_area,
            island_area=self._max_sprinkle_area,
        )
        return full_size(tidy, size)


def _model(given: Sam2Model | SAM2VideoPredictor | Bundle | str | Path) -> Sam2Model:
    """A model, whatever it is given as."""
    if isinstance(given, SAM2VideoPredictor):
        return given.model
    return given if isinstance(given, Sam2Model) else open_model(given)


def published_model(model_id: str, arguments: dict[str, Any]) -> tuple[Sam2Model, dict[str, Any]]:
    """A published model, built with those of the arguments that are for its builder, and the
    others.
    """
    known = inspect.signature(build_sam2).parameters
    built = {name: value for name, value in arguments.items() if name in known}
    rest = {name: value for name, value in arguments.items() if name not in known}
    return build_sam2_hf(model_id, **built), rest


def _entry(batch: Sequence[ArrayLike | None] | None, index: int, count: int) -> ArrayLike | None:
    """A picture's prompt of a list of prompts."""
    if batch is None:
        return None
    if len(batch) != count:
        raise PromptError(
            f"{len(batch)} prompts for {count} pictures; give one each, None for none"
        )
    return batch[index]


def _squeezed(masks: NDArray[np.float32], decoded: Decoded) -> Prediction:
    """The results, without the axis of rows if there is one row."""
    logits = clamp_logits(decoded.logits)
    if len(masks) == 1:
        return masks[0], decoded.iou[0], logits[0]
    return masks, decoded.iou, logits
