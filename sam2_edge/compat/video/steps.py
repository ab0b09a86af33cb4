"""One object on one frame: from a prompt or from its memory. Outputs are on the host."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2_edge.errors import PromptError
from sam2_edge.runtime.memory.token_selection import select_cells
from sam2_edge.runtime.model import (
    MASK_PROMPT_SCORE,
    Features,
    MemoryInputs,
    Model,
    clamp_logits,
)
from sam2_edge.runtime.prompts import NO_POINTS, ModelPrompt


@dataclass(frozen=True, slots=True)
class ObjectOutput:
    """An object on a frame.

    Attributes:
        logits: [s, s] mask logits.
        pointer: [C].
        object_score: Logit; above 0 if the object is present.
    """

    logits: NDArray[np.float32]
    pointer: NDArray[np.float32]
    object_score: float


def decode(
    model: Model,
    features: Features,
    memory: MemoryInputs | None,
    prompt: ModelPrompt = NO_POINTS,
    *,
    previous: NDArray[np.float32] | None = None,
    by_stability: bool = True,
) -> ObjectOutput:
    """Find an object by points, or by its memory alone.

    Args:
        memory: None on a frame that is not conditioned.
        previous: [s, s] logits of the same frame that the prompt refines.
        by_stability: Whether to take the best of three masks where the single one is unstable.
    """
    conditioned = features.unconditioned if memory is None else model.attend(features, memory)
    multimask = prompt.wants_multimask
    output = model.decode(
        features,
        conditioned,
        prompt,
        multimask=multimask,
        mask_input=None if previous is None else clamp_logits(previous)[None, None],
    )
    download = model.backend.download
    score = float(download(output.object_score)[0])
    logits = download(output.best_mask)[0, 0]
    if not by_stability and not multimask and score > 0:
        logits = download(output.masks)[0, 0]
    return ObjectOutput(logits, download(output.pointer)[0], score)


def decode_mask(model: Model, features: Features, mask: NDArray[np.float32]) -> ObjectOutput:
    """Take a mask [S, S] as the object; an empty one means that it is absent."""
    logits, pointer = (t[0] for t in map(model.backend.download, model.decode_mask(features, mask)))
    if (mask > 0).any():
        return ObjectOutput(logits[0], pointer, MASK_PROMPT_SCORE)
    return ObjectOutput(logits[0], _absent_pointer(model, features), -MASK_PROMPT_SCORE)


def encode_memory(
    model: Model,
    features: Features,
    logits: NDArray[np.float32],
    object_score: float,
    *,
    binarize: bool,
) -> tuple[NDArray[np.float32], NDArray[np.int32] | None]:
    """Return the memory [m, h, w] of a frame, and the cells [N] to attend to; None for all."""
    score = np.array([object_score], np.float32)
    memory = model.encode_memory(features, logits[None, None], score, binarize=binarize)
    cells = None
    if model.geometry.memory_tokens is not None:
        cells = select_cells(logits[None], model.geometry)[0]
    return model.backend.download(memory)[0].astype(np.float32), cells


def _absent_pointer(model: Model, features: Features) -> NDArray[np.float32]:
    """Return the pointer of an absent object.

    It is a weight, so a graph has to produce it: the decoder does if its score is not above 0,
    and NaN is not.
    """
    nothing = model.backend.upload(
        np.full(features.embedding.shape, np.nan, model.geometry.feature_dtype)
    )
    output = model.decode(features, nothing, multimask=False)
    pointer = model.backend.download(output.pointer)[0]
    if not np.isfinite(pointer).all():
        raise PromptError(
            "the mask is empty, which this backend cannot take as a prompt; use the backend cpu"
        )
    return pointer
