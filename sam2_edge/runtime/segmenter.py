"""Segmentation of single images: set an image once, then prompt it any number of times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam2_edge.bundle import Bundle
from sam2_edge.errors import PromptError
from sam2_edge.runtime.backends import BackendName
from sam2_edge.runtime.model import Features, NotCopyable, clamp_logits, open_model
from sam2_edge.runtime.preprocess import model_image
from sam2_edge.runtime.prompts import NO_POINTS, Prompt, finite_numbers, model_prompt
from sam2_edge.runtime.results import MASK_LOGIT, full_size
from sam2_edge.runtime.short_repr import short_repr

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Masks for one prompt, best first.

    Attributes:
        masks: [K, H, W] bool at the image's size.
        scores: [K] float32, predicted IoU, 0 to 1.
        logits: [K, S/4, S/4] float32; any one of them can be passed to `predict` for refinement.
        object_score: Logit; the object is judged present above 0.
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    logits: NDArray[np.float32]
    object_score: float

    __repr__ = short_repr


class ImageSegmenter(NotCopyable):
    """Promptable segmentation of single images.

    Args:
        bundle: A bundle, its folder, or the name of a bundled model.
        backend: Name of the backend that runs the graphs.
        threads: CPU threads; None for all cores.

    Raises:
        BundleError: If the bundle cannot be used.
        BackendError: If the backend is missing or cannot run the bundle.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        *,
        backend: BackendName = "auto",
        threads: int | None = None,
    ) -> None:
        self._model = open_model(bundle, backend, threads=threads)
        self._features: Features | None = None
        self._image_size = (0, 0)

    def set_image(self, image: NDArray[Any]) -> None:
        """Encode an image, [H, W, 3] uint8 BGR of any size.

        Raises:
            SourceError: If the image has a different shape or dtype.
        """
        pixels = model_image(image, self._model.geometry.image_size)
        self._features = self._model.encode(pixels)
        self._image_size = (image.shape[0], image.shape[1])

    def predict(
        self,
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        logits: NDArray[np.float32] | None = None,
        multimask: bool = False,
    ) -> Segmentation:
        """Segment one object.

        Args:
            points: As in `Prompt`.
            labels: As in `Prompt`.
            box: As in `Prompt`.
            mask: As in `Prompt`: a rough mask to refine.
            logits: [S/4, S/4], logits of an earlier result to refine.
            multimask: Whether to return three masks for an ambiguous prompt, not only the best.

        Raises:
            PromptError: If the prompt is invalid, or no image is set.
        """
        if self._features is None:
            raise PromptError("there is no image yet; call set_image first")
        mask_input = self._mask_input(mask, logits)
        prompt = NO_POINTS
        if points is not None or box is not None or labels is not None:
            prompt = model_prompt(
                Prompt(1, points, labels, box), self._image_size, self._model.geometry.image_size
            )
            self._model.check_points(len(prompt.labels))
        elif mask_input is None:
            raise PromptError("an empty prompt; give points, a box, a mask or logits")
        output = self._model.decode(
            self._features,
            self._features.unconditioned,
            prompt,
            multimask=multimask,
            mask_input=mask_input,
        )
        download = self._model.backend.download
        masks, scores = download(output.masks)[0], download(output.iou)[0]
        # These masks precede the object score, since presence has no meaning for an image.
        order = 1 + np.argsort(-scores[1:], kind="stable")
        chosen = order if multimask else download(output.best_index)
        return Segmentation(
            masks=np.stack([full_size(m, self._image_size) > MASK_LOGIT for m in masks[chosen]]),
            scores=scores[chosen],
            logits=masks[chosen],
            object_score=float(download(output.object_score)[0]),
        )

    def close(self) -> None:
        """Release the engines and all memory; ends the segmenter's use."""
        self._features = None
        self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _mask_input(
        self, mask: ArrayLike | None, logits: NDArray[np.float32] | None
    ) -> NDArray[np.float32] | None:
        """Return the logits [1, 1, s, s] of the mask to refine, if there is one."""
        if mask is not None and logits is not None:
            raise PromptError("both a mask and logits; give one of them")
        if mask is not None:
            size = self._model.geometry.image_size
            prompt = model_prompt(Prompt(1, mask=mask), self._image_size, size)
            assert prompt.mask is not None  # for the type checker
            _, mask_logits = self._model.encode_mask(prompt.mask)
            return self._model.backend.download(mask_logits)
        if logits is None:
            return None
        size = self._model.geometry.mask_size
        array = finite_numbers(logits, "logits")
        if array.shape != (size, size):
            raise PromptError(f"logits of shape {array.shape}; give [{size}, {size}]")
        return clamp_logits(array)[None, None]
