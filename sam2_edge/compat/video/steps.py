"""One object on one frame: the graphs that a click, a mask, tracking and remembering need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle.contract import Graph
from sam2_edge.compat.model import Sam2Model
from sam2_edge.compat.video.conditioning import Conditioning
from sam2_edge.compat.video.frames import ModelImage
from sam2_edge.errors import BackendError, PromptError
from sam2_edge.runtime.backends import Tensor
from sam2_edge.runtime.memory.token_selection import cells_to_keep
from sam2_edge.runtime.model import MASK_PROMPT_SCORE, PREVIOUS_LOGIT_LIMIT, Decoder, Features
from sam2_edge.runtime.prompts import NO_POINTS, ModelPrompt


@dataclass(frozen=True, slots=True)
class Found:
    """An object on a frame, on the host: logits [s,s], pointer [C], object score."""

    logits: NDArray[np.float32]
    pointer: NDArray[np.float32]
    object_score: float


class Steps:
    """The graphs of one model, object by object."""

    def __init__(self, model: Sam2Model) -> None:
        self._backend = model.backend
        self._geometry = model.bundle.manifest.geometry
        self._decoder = Decoder(model.backend, self._geometry)
        self._most_points = model.bundle.most("N")

    def encode(self, image: ModelImage) -> Features:
        """Features of a frame."""
        pixels = self._backend.upload(image)
        return Features(**self._backend.run(Graph.IMAGE_ENCODER, {"image": pixels}))

    def condition(self, features: Features, seen: Conditioning) -> Tensor:
        """The frame's embedding as memory makes it.

        Raises BackendError where an engine takes no memory without a pointer.
        """
        upload = self._backend.upload
        inputs = {
            "embedding": features.embedding,
            "memory": upload(seen.memory),
            "memory_age": upload(seen.memory_age),
            "pointers": upload(seen.pointers),
            "pointer_age": upload(seen.pointer_age),
        }
        if seen.memory_cells is not None:
            inputs["memory_cells"] = upload(seen.memory_cells)
        if not len(seen.pointers) and self._most_points is not None:
            raise BackendError(
                "this bundle's engines take one object pointer or more, and there is none on this "
                "side of the prompted frame; track from the prompted frame on, or use a bundle of "
                "ONNX graphs"
            )
        return self._backend.run(Graph.MEMORY_ATTENTION, inputs)["conditioned"]

    def check_points(self, prompt: ModelPrompt) -> None:
        """Raise PromptError where engines take fewer points."""
        if self._most_points is not None and len(prompt.labels) > self._most_points:
            raise PromptError(
                f"{len(prompt.labels)} points, the corners of a box among them; this bundle's "
                f"engines take {self._most_points}: give fewer"
            )

    def decode(
        self,
        features: Features,
        seen: Conditioning | None,
        prompt: ModelPrompt = NO_POINTS,
        *,
        previous: NDArray[np.float32] | None = None,
        by_stability: bool = True,
    ) -> Found:
        """The object by points, or by its memory alone.

        seen: its memory, None for a frame that does without. previous: [s,s] logits of the same
        frame that the prompt refines. by_stability: take the best of three masks where the single
        one is unstable.
        """
        conditioned = features.unconditioned if seen is None else self.condition(features, seen)
        mask_input = None
        if previous is not None:
            limited = np.clip(previous, -PREVIOUS_LOGIT_LIMIT, PREVIOUS_LOGIT_LIMIT)
            mask_input = self._backend.upload(limited[None, None])
        multimask = prompt.wants_multimask
        outputs = self._decoder.run(
            features, conditioned, prompt, multimask=multimask, mask_input=mask_input
        )
        download = self._backend.download
        score = float(download(outputs["object_score"])[0])
        logits = download(outputs["best_mask"])[0, 0]
        if not by_stability and not multimask and score > 0:
            logits = download(outputs["masks"])[0, 0]
        return Found(logits, download(outputs["pointer"])[0], score)

    def mask(self, features: Features, mask: NDArray[np.float32]) -> Found:
        """The object that a mask [S,S] is; an empty one says that it is not there."""
        decoded = self._decoder.mask(features, 0, mask, conditioning=True)
        logits = self._backend.download(decoded.mask_logits)[0, 0]
        if not (mask > 0).any():
            return Found(logits, self._absent_pointer(features), -MASK_PROMPT_SCORE)
        return Found(logits, self._backend.download(decoded.pointer)[0], MASK_PROMPT_SCORE)

    def memory(self, features: Features, found: Found, *, binarize: bool) -> NDArray[np.float32]:
        """What is to be remembered of a frame, [m,h,w]."""
        upload = self._backend.upload
        inputs = {
            "embedding": features.embedding,
            "mask_logits": upload(found.logits[None, None]),
            "object_score": upload(np.array([found.object_score], np.float32)),
            "binarize": upload(np.array([binarize], np.int32)),
        }
        return self._backend.download(self._backend.run(Graph.MEMORY_ENCODER, inputs)["memory"])[0]

    def memory_cells(self, found: Found) -> NDArray[np.int32] | None:
        """The cells [N] of that memory that are attended to, None for all."""
        if self._geometry.memory_tokens is None:
            return None
        return cells_to_keep(found.logits[None], self._geometry)[0]

    def _absent_pointer(self, features: Features) -> NDArray[np.float32]:
        """The pointer of an object that is not there. It is a weight, so a graph has to say it: the
        decoder does where its score is not above 0, as a score that is no number is not.
        """
        nothing = self._backend.upload(np.full(features.embedding.shape, np.nan, np.float32))
        outputs = self._decoder.run(features, nothing, NO_POINTS, multimask=False)
        pointer = self._backend.download(outputs["pointer"])[0]
        if not np.isfinite(pointer).all():
            raise PromptError(
                "the mask is empty, which this backend cannot take as a prompt; use the backend cpu"
            )
        return pointer
