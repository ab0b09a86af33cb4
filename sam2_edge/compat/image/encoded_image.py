"""An image as the original takes it, encoded once and decoded for many prompts."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_edge.compat.model import Sam2Model
from sam2_edge.errors import SourceError
from sam2_edge.runtime.backends import Tensor
from sam2_edge.runtime.prompts import ModelPrompt
from sam2_edge.runtime.resampling import antialiased_picture

ImageInput = NDArray[Any] | Image.Image
"""[H, W, 3] uint8 RGB, or a Pillow image of mode RGB."""


class EncodedImage:
    """The features of an image, and the decoder that reads them.

    Attributes:
        size: Height and width of the image, pixels.
        geometry: Of the model.

    Raises:
        SourceError: If it is not an image of the supported kind.
    """

    def __init__(self, model: Sam2Model, image: ImageInput) -> None:
        pixels = rgb_pixels(image)
        self.size: tuple[int, int] = (pixels.shape[0], pixels.shape[1])
        self._graphs = model.graphs
        self.geometry = model.graphs.geometry
        self._by_stability = model.dynamic_multimask_via_stability
        self._features = self._graphs.encode(antialiased_picture(pixels, model.image_size)[None])
        self._repeated: Tensor | None = None

    @property
    def embedding(self) -> NDArray[np.float32]:
        """[1, C, h, w], as the decoder sees it."""
        return self._graphs.backend.download(self._features.unconditioned).astype(np.float32)

    def decode(
        self, prompt: ModelPrompt, mask_input: NDArray[np.float32] | None, *, multimask: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decode the prompts of B objects, in several runs if the engines take fewer.

        Args:
            prompt: Rows [B, N, 2].
            mask_input: [B, 1, s, s] logits.
            multimask: Whether to return masks 1 to 3 instead of the single one, which is replaced
                by the best of three if it is unstable and the model was built for that.

        Returns:
            Logits [B, K, s, s] and predicted IoU [B, K].

        Raises:
            PromptError: For more points per object than the engines take.
        """
        rows, points = prompt.labels.shape
        self._graphs.check_points(points)
        download, runs = self._graphs.backend.download, []
        step = self._graphs.max_objects or rows
        for start in range(0, rows, step):
            part = slice(start, start + step)
            labels = prompt.labels[part]
            output = self._graphs.decode(
                self._features,
                self._unconditioned(len(labels)),
                ModelPrompt(prompt.coords[part], labels),
                multimask=multimask,
                mask_input=None if mask_input is None else mask_input[part],
            )
            runs.append([download(t) for t in (output.masks, output.iou, output.best_index)])
        logits, iou, best = (np.concatenate(arrays) for arrays in zip(*runs, strict=True))
        if multimask:
            return logits[:, 1:], iou[:, 1:]
        chosen = np.arange(rows), best if self._by_stability else np.zeros_like(best)
        return logits[chosen][:, None], iou[chosen][:, None]

    def _unconditioned(self, rows: int) -> Tensor:
        """Repeat the embedding to [rows, C, h, w]; kept for the next prompts."""
        embedding = self._features.unconditioned
        if rows == 1:
            return embedding
        if self._repeated is None or self._repeated.shape[0] < rows:
            self._repeated = self._graphs.backend.empty(
                (rows, *embedding.shape[1:]), self._graphs.geometry.feature_dtype
            )
            for row in range(rows):
                self._graphs.backend.copy(embedding[0], self._repeated[row])
        return cast("Tensor", self._repeated[:rows])


def rgb_pixels(image: ImageInput) -> NDArray[np.uint8]:
    """Return an image as [H, W, 3] uint8 RGB; raise SourceError for any other kind."""
    if isinstance(image, Image.Image):
        if image.mode != "RGB":
            raise SourceError(
                f'the image has mode {image.mode}; convert it with image.convert("RGB")'
            )
        return np.asarray(image)
    remedy = "give a uint8 array [H, W, 3] in RGB order or a Pillow image"
    if not isinstance(image, np.ndarray):
        raise SourceError(f"the image is {type(image).__name__}; {remedy}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise SourceError(f"the image is {image.dtype} of shape {image.shape}; {remedy}")
    return image
