"""What a phase of training minimizes: losses of a batch, by name, with "total"."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from sam2_edge.bundle.contract import Graph
from sam2_edge.models.edgetam.perceiver import Perceiver
from sam2_edge.models.graphs import graph_modules
from tools.nano.data import Batch
from tools.nano.edgetam import TrainableFeatures
from tools.nano.losses import Decoding, loss_of
from tools.nano.recipe import Phase
from tools.nano.rollout import Rollout

Objective = Callable[[Batch], dict[str, Tensor]]


class MakeObjective(Protocol):
    """Makes what a phase minimizes."""

    def __call__(self, model: PreTrainedModel, phase: Phase, *, half: bool) -> Objective:
        """Make the objective of the model in training; `half` computes in bfloat16."""
        ...


EMBEDDING_WEIGHT = 2.0
"""Of the embedding's error; those of the two finer maps have weight 1."""


class Masks:
    """The losses of the masks in clips (tools/nano/losses.py)."""

    def __init__(self, model: PreTrainedModel, phase: Phase, *, half: bool) -> None:  # noqa: ARG002
        self._rollout = Rollout(model, half=half)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Means over all decodings."""
        decodings: Iterator[Decoding] = itertools.chain.from_iterable(self._rollout.run(batch))
        parts = [loss_of(decoding) for decoding in decodings]
        return {key: torch.stack([p[key] for p in parts]).mean() for key in parts[0]}


class FeatureDistillation:
    """Squared error of the image encoder's features, relative to the variance of the teacher's."""

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel, *, half: bool) -> None:
        encoder: Any = graph_modules(teacher, memory_rounding="none")[Graph.IMAGE_ENCODER]
        self._teacher = encoder.to(student.device).eval()
        self._features = TrainableFeatures(student)
        self._half = half
        self._variances: list[Tensor] | None = None

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Means over the first frames of the batch."""
        mean, std = self._teacher.mean, self._teacher.std
        images = batch.frames[:, 0].to(mean.device)
        with torch.autocast(mean.device.type, torch.bfloat16, enabled=self._half):
            with torch.no_grad():
                wanted = [x.float() for x in self._teacher(images)[:3]]
            found = self._features((images.float().permute(0, 3, 1, 2) - mean) / std)
        if self._variances is None:  # of the first batch, so that the scale of the loss stays
            self._variances = [x.var(dim=(0, 2, 3), keepdim=True) for x in wanted]
        names = ("high_res_0", "high_res_1", "embedding")
        columns = zip(names, found, wanted, self._variances, strict=True)
        parts = {name: _relative_error(x, y, variance) for name, x, y, variance in columns}
        finer = parts["high_res_0"] + parts["high_res_1"]
        return {**parts, "total": finer + EMBEDDING_WEIGHT * parts["embedding"]}


class MemoryDistillation:
    """Squared error of conditioned embeddings, which the teacher computes from whole memories.

    The teacher tracks a clip; the student compresses the teacher's memories and attends to them.
    So every frame is an example, and nothing passes from one frame to the next.
    """

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel, *, half: bool) -> None:
        self._tracked = Rollout(teacher.to(student.device).eval(), half=half)
        self._seen = Recording(self._tracked.attention)
        self._attention = graph_modules(student)[Graph.MEMORY_ATTENTION].to(student.device)
        self._perceiver = Perceiver(student).to(student.device)
        self._device, self._half = student.device, half

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Mean over all frames but the first, relative to the variance of the teacher's result."""
        with torch.no_grad():
            self._tracked.run(batch)
        errors = []
        for (embedding, memory, *rest), wanted in self._seen.take():
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
                found = self._attention(embedding, self._perceiver(memory), *rest)
            errors.append(_relative_error(found, wanted.float(), wanted.float().var()))
        return {"total": torch.stack(errors).mean()}


class Recording:
    """Inputs and results of a module's calls."""

    def __init__(self, module: nn.Module) -> None:
        self._calls: list[tuple[tuple[Any, ...], Any]] = []
        module.register_forward_hook(lambda _, given, result: self._calls.append((given, result)))

    def take(self) -> list[tuple[tuple[Any, ...], Any]]:
        """Return the calls since the last time."""
        calls, self._calls[:] = list(self._calls), []
        return calls


def _relative_error(found: Tensor, wanted: Tensor, variance: Tensor) -> Tensor:
    return (F.mse_loss(found.float(), wanted, reduction="none") / variance).mean()
