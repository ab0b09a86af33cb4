"""Pictures as the original takes them, encoded once and decoded for many prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_edge.bundle.contract import Geometry
from sam2_edge.compat.image.prompts import Prompts
from sam2_edge.compat.model import Sam2Model
from sam2_edge.errors import SourceError
from sam2_edge.runtime.backends import Tensor
from sam2_edge.runtime.prompts import ModelPrompt
from sam2_edge.runtime.resampling import antialiased_picture

Picture = NDArray[Any] | Image.Image


@dataclass(frozen=True, slots=True)
class Decoded:
    """Masks for rows of prompts: logits [B,K,s,s] float32, predicted IoU [B,K] float32."""

    logits: NDArray[np.float32]
    iou: NDArray[np.float32]


class EncodedPicture:
    """A picture's features, and the decoder that reads them.

    size: height and width of the picture in pixels.
    """

    def __init__(self, model: Sam2Model, picture: Picture) -> None:
        pixels = rgb_pixels(picture)
        self.size: tuple[int, int] = (pixels.shape[0], pixels.shape[1])
        self._graphs = model.graphs
        self.geometry: Geometry = model.graphs.geometry
        self._by_stability = model.dynamic_multimask_via_stability
        self._features = self._graphs.encode(antialiased_picture(pixels, model.image_size)[None])
        self._spread: Tensor | None = None

    @property
    def embedding(self) -> NDArray[np.float32]:
        """[1,C,h,w] float32, as the decoder sees it."""
        return self._graphs.backend.download(self._features.unconditioned)

    def decode(self, prompts: Prompts, *, multimask: bool) -> Decoded:
        """Masks 1 to 3 of every row, or the single one, which gives way to the best of three where
        it is not stable and the model was built for that.

        Engines take a limited number of rows; more go through in turns.

        Raises PromptError for more points in a row than the engines take.
        """
        rows, points = prompts.labels.shape
        self._graphs.check_points(points)
        turns = prompts.turns(min(rows, self._graphs.max_objects or rows))
        parts = [self._decode(turn, multimask=multimask) for turn in turns]
        return Decoded(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.iou for part in parts]),
        )

    def _decode(self, prompts: Prompts, *, multimask: bool) -> Decoded:
        rows = len(prompts.labels)
        output = self._graphs.decode(
            self._features,
            self._conditioned(rows),
            ModelPrompt(prompts.coords, prompts.labels),
            multimask=multimask,
            mask_input=prompts.mask_input,
        )
        download = self._graphs.backend.download
        logits, iou = download(output.masks), download(output.iou)
        if multimask:
            return Decoded(logits[:, 1:], iou[:, 1:])
        best = np.zeros(rows, np.intp)
        if self._by_stability:
            best = download(output.best_index).astype(np.intp)
        chosen = np.arange(rows), best
        return Decoded(logits[chosen][:, None], iou[chosen][:, None])

    def _conditioned(self, rows: int) -> Tensor:
        """The embedding [rows,C,h,w], the same in every row; kept, since batches repeat."""
        embedding = self._features.unconditioned
        if rows == 1:
            return embedding
        if self._spread is None or self._spread.shape[0] < rows:
            self._spread = self._graphs.backend.empty((rows, *embedding.shape[1:]))
            for row in range(rows):
                self._graphs.backend.copy(embedding[0], self._spread[row])
        return cast("Tensor", self._spread[:rows])


def rgb_pixels(picture: Picture) -> NDArray[np.uint8]:
    """A picture as [H,W,3] uint8 RGB.

    Raises SourceError when it is something else: the graphs take bytes.
    """
    if isinstance(picture, Image.Image):
        if picture.mode != "RGB":
            raise SourceError(
                f'the picture has mode {picture.mode}; convert it with picture.convert("RGB")'
            )
        return np.asarray(picture)
    if not isinstance(picture, np.ndarray):
        raise SourceError(
            f"the picture is {type(picture).__name__}; give a uint8 array [H, W, 3] in RGB order "
            "or a Pillow image"
        )
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise SourceError(
            f"the picture is {picture.dtype} of shape {picture.shape}; give uint8 [H, W, 3] in "
            "RGB order"
        )
    return picture
