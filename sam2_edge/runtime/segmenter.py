"""Segmenting single images: set an image once, then prompt it as often as wanted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.errors import PromptError
from sam2_edge.runtime.backends import Backend, BackendName, open_backend
from sam2_edge.runtime.model import PREVIOUS_LOGIT_LIMIT, Decoder, Features
from sam2_edge.runtime.preprocess import check_frame, model_image
from sam2_edge.runtime.prompts import NO_POINTS, ModelPrompt, Prompt, model_prompt
from sam2_edge.runtime.results import MASK_LOGIT, full_size


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Masks for one prompt, best first.

    masks: [K,H,W] bool at the image's size. scores: [K] float32, predicted IoU in 0..1. logits:
    [K,S/4,S/4] float32; one of them can be fed back to `predict`. object_score: logit.
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    logits: NDArray[np.float32]
    object_score: float


class ImageSegmenter:
    """Promptable segmentation of single images.

    bundle: a bundle folder or a loaded bundle. backend: what runs it, see
    `BackendName`. threads: CPU threads; None uses all cores.

    Raises BundleError or BackendError when the bundle cannot be used.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        *,
        backend: BackendName = "auto",
        threads: int | None = None,
    ) -> None:
        loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self._geometry = loaded.manifest.geometry
        self._backend: Backend = open_backend(loaded, backend, threads=threads)
        self._decoder = Decoder(self._backend, self._geometry)
        self._features: Features | None = None
        self._frame_size = (0, 0)

    def set_image(self, image: NDArray[Any]) -> None:
        """Encode an image, [H,W,3] uint8 BGR of any size.

        Raises SourceError when it is not such an array.
        """
        picture = check_frame(image)
        pixels = self._backend.upload(model_image(picture, self._geometry.image_size))
        self._features = Features(**self._backend.run(Graph.IMAGE_ENCODER, {"image": pixels}))
        self._frame_size = (picture.shape[0], picture.shape[1])

    def predict(
        self,
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: NDArray[Any] | None = None,
        logits: NDArray[np.float32] | None = None,
        multimask: bool = False,
    ) -> Segmentation:
        """Masks for one prompt in the image's pixels.

        points, labels, box: as in `Prompt`. mask: [H,W], a rough mask to improve on. logits:
        [S/4,S/4] of an earlier result to improve on. multimask: three masks, best first, for a
        prompt that may mean several things; otherwise the best one.

        Raises PromptError for a bad prompt, or when no image is set.
        """
        if self._features is None:
            raise PromptError("there is no image yet; call set_image first")
        prompt = NO_POINTS
        if points is not None or box is not None or labels is not None:
            given = Prompt(1, points, labels, box)
            prompt = model_prompt(given, self._frame_size, self._geometry.image_size)
        mask_logits = self._mask_logits(mask, logits)
        if prompt is NO_POINTS and mask_logits is None:
            raise PromptError("an empty prompt; give points, a box, a mask or logits")
        return self._decode(self._features, prompt, mask_logits, multimask=multimask)

    def _mask_logits(
        self, mask: NDArray[Any] | None, logits: NDArray[np.float32] | None
    ) -> NDArray[np.float32] | None:
        """The mask that the decoder is to improve on, [s,s] logits."""
        if mask is not None and logits is not None:
            raise PromptError("a mask and logits; give one of them")
        if mask is not None:
            size = self._geometry.image_size
            given = model_prompt(Prompt(1, mask=mask), self._frame_size, size)
            assert given.mask is not None  # it was given
            inputs = {"mask": self._backend.upload(given.mask[None, None])}
            outputs = self._backend.run(Graph.MASK_PROMPT, inputs)
            return self._backend.download(outputs["mask_logits"])[0, 0]
        if logits is None:
            return None
        low = self._geometry.mask_size
        given_logits = np.asarray(logits, np.float32)
        if given_logits.shape != (low, low) or not np.isfinite(given_logits).all():
            raise PromptError(
                f"logits of shape {given_logits.shape}; give finite [{low}, {low}] of a result"
            )
        return np.clip(given_logits, -PREVIOUS_LOGIT_LIMIT, PREVIOUS_LOGIT_LIMIT)

    def _decode(
        self,
        features: Features,
        prompt: ModelPrompt,
        mask_logits: NDArray[np.float32] | None,
        *,
        multimask: bool,
    ) -> Segmentation:
        mask_input = None
        if mask_logits is not None:
            mask_input = self._backend.upload(mask_logits[None, None])
        outputs = self._decoder.run(
            features, features.unconditioned, prompt, multimask=multimask, mask_input=mask_input
        )
        download = self._backend.download
        masks, scores = download(outputs["masks"])[0], download(outputs["iou"])[0]
        # An image has no "absent": these are the masks before the object score is applied.
        order = 1 + np.argsort(-scores[1:], kind="stable")
        chosen = order if multimask else download(outputs["best_index"])
        kept = masks[chosen]
        return Segmentation(
            masks=np.stack([full_size(m, self._frame_size) > MASK_LOGIT for m in kept]),
            scores=scores[chosen],
            logits=kept,
            object_score=float(download(outputs["object_score"])[0]),
        )
