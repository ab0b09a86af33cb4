"""Runs the graph modules over a batch of clips like the tracker, with gradients."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import EdgeTamVideoModel, PreTrainedModel

from sam2_edge.bundle.contract import (
    LABEL_BACKGROUND,
    LABEL_FOREGROUND,
    LABEL_PAD,
    MASK_PIXELS,
    Graph,
)
from sam2_edge.models.families import geometry_of
from sam2_edge.models.graphs import graph_modules
from sam2_edge.models.sam2.variants import STRIDE
from tools.nano.data import Batch
from tools.nano.edgetam import TrainableFeatures
from tools.nano.losses import Decoding

TARGET_STRIDE = 2
"""Masks are compared at half the input's resolution, twice that of the logits: for sharp edges."""

PREVIOUS_LOGIT_LIMIT = 32.0
"""Logits fed back are limited to this (SAM 2, `add_new_points_or_box`)."""

MASK_PROMPT_SCORE = 10.0
"""Object score of a frame with a mask prompt (SAM 2, `_use_mask_as_output`)."""


@dataclass(slots=True)
class Bank:
    """Memories and pointers of all rows, which have the same conditioning frames."""

    slots: int
    pointers: int
    cond_frames: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    others: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def inputs(self, now: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Memory [M*R,m,h,w], memory_rows, memory_age [M,R], pointers [P,R,C], pointer_age."""
        recent = [t for t in self.others if now - t < self.slots]
        memories = [m for m, _ in self.cond_frames.values()] + [self.others[t][0] for t in recent]
        ages = [0] * len(self.cond_frames) + [now - t for t in recent]
        pointing = [t for t in self.others if now - t < self.pointers]
        pointers = [p for _, p in self.cond_frames.values()] + [self.others[t][1] for t in pointing]
        since = [now - t for t in [*self.cond_frames, *pointing]]
        rows, device = memories[0].shape[0], memories[0].device
        memory_rows = torch.arange(len(memories) * rows, device=device).reshape(-1, rows)
        age = torch.tensor(ages, device=device)[:, None].expand(-1, rows)
        pointer_age = torch.tensor(since, dtype=torch.float32, device=device)
        pointer_age = (pointer_age / (self.pointers - 1))[:, None].expand(-1, rows)
        return torch.cat(memories), memory_rows, age, torch.stack(pointers), pointer_age


@dataclass(frozen=True, slots=True)
class Features:
    """Features of one frame of every row."""

    high_res_0: Tensor
    high_res_1: Tensor
    embedding: Tensor
    unconditioned: Tensor


@dataclass(frozen=True, slots=True)
class Frame:
    """The state of one frame of every row: features, target, and the last decoding."""

    features: Features
    conditioned: Tensor
    target: Tensor


class Rollout:
    """One model at one image size, applied to batches of clips.

    Args:
        model: The model.
        half: Run the model in bfloat16 where PyTorch's autocast does; losses stay in float32.
    """

    def __init__(self, model: PreTrainedModel, *, half: bool) -> None:
        modules = graph_modules(model, memory_rounding="none")
        self._encoder = modules[Graph.IMAGE_ENCODER]
        if model.training and isinstance(model, EdgeTamVideoModel):
            # The graph has copies of these weights, with batch normalization in the convolutions.
            self._encoder.features = TrainableFeatures(model).with_still_norms()
        self.attention = modules[Graph.MEMORY_ATTENTION]
        self._mask_prompt = modules[Graph.MASK_PROMPT]
        self._decoder = modules[Graph.MASK_DECODER]
        self.memory = modules[Graph.MEMORY_ENCODER]
        self._device = next(model.parameters()).device
        for module in modules.values():
            module.to(self._device)
        self._geometry = geometry_of(model.config)
        self._half = half

    def run(self, batch: Batch) -> list[list[Decoding]]:
        """Decodings of every frame, the corrected one last."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            return self._run(batch)

    def _run(self, batch: Batch) -> list[list[Decoding]]:
        bank = Bank(self._geometry.memory_slots, self._geometry.pointers)
        clips, frames = batch.frames.shape[:2]
        stacked = self._encoder(batch.frames.to(self._device).flatten(0, 1))
        truth = targets(batch).to(self._device)
        results = []
        for now in range(frames):
            rows = torch.arange(clips, device=self._device) * frames + now
            rows = rows.repeat_interleave(batch.objects)
            features = Features(*(x[rows] for x in stacked))
            conditioned = features.unconditioned
            if batch.kind == "mask":  # as published (`_use_mask_as_output`)
                conditioned = features.embedding
            if now:
                conditioned = self.attention(features.embedding, *bank.inputs(now))
            frame = Frame(features, conditioned, truth[:, now])
            results.append(self._track(frame, bank, now, batch))
        return results

    def _track(self, frame: Frame, bank: Bank, now: int, batch: Batch) -> list[Decoding]:
        coords, labels, logits, mask_input = self._prompt(frame, batch, first=now == 0)
        # A single click, or none, is ambiguous; a mask prompt is not.
        multimask = labels.shape[1] < 2 and mask_input is None
        decoding, output = self._decode(frame, coords, labels, mask_input, multimask=multimask)
        decodings = [decoding]
        if now in batch.corrections:
            click, label = correcting_click(output["best_mask"], frame.target)
            if now:
                coords, labels = click, label
            else:
                coords, labels = torch.cat([coords, click], 1), torch.cat([labels, label], 1)
            previous = output["best_mask"].detach()
            previous = previous.clamp(-PREVIOUS_LOGIT_LIMIT, PREVIOUS_LOGIT_LIMIT)
            decoding, output = self._decode(
                frame, coords, labels, previous, multimask=labels.shape[1] < 2
            )
            decodings.append(decoding)
        conditioning = now == 0 or now in batch.corrections
        score = output["object_score"]
        if logits is not None:  # a mask prompt is the result, and its object is present
            score = torch.full_like(score, MASK_PROMPT_SCORE)
        memory = self.memory(
            frame.features.embedding,
            output["best_mask"] if logits is None else logits,
            score,
            torch.full((len(labels),), int(conditioning), device=self._device),
        )
        (bank.cond_frames if conditioning else bank.others)[now] = (memory, output["pointer"])
        return decodings

    def _prompt(
        self, frame: Frame, batch: Batch, *, first: bool
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """coords, labels, logits of a mask prompt, mask_input."""
        if first and batch.kind != "mask":
            return batch.coords.to(self._device), batch.labels.to(self._device), None, None
        rows = len(frame.target)
        coords = torch.zeros(rows, 1, 2, device=self._device)
        labels = torch.full((rows, 1), LABEL_PAD, device=self._device)
        if not first:
            return coords, labels, None, None
        mask = object_masks(batch)[:, :1].to(self._device)
        mask_input, logits = self._mask_prompt(mask)
        return coords, labels, logits, mask_input

    def _decode(
        self,
        frame: Frame,
        coords: Tensor,
        labels: Tensor,
        mask_input: Tensor | None,
        *,
        multimask: bool,
    ) -> tuple[Decoding, dict[str, Tensor]]:
        rows, side = len(coords), self._geometry.mask_size
        given = mask_input is not None
        if mask_input is None:
            mask_input = torch.zeros(rows, 1, side, side, device=self._device)
        masks, iou, _, _, best_mask, _, pointer, score = self._decoder(
            frame.conditioned,
            frame.features.high_res_0,
            frame.features.high_res_1,
            coords,
            labels,
            mask_input,
            torch.full((rows,), int(given), device=self._device),
            torch.full((rows,), int(multimask), device=self._device),
        )
        decoding = Decoding(masks.float(), iou.float(), score.float(), frame.target, multimask)
        return decoding, {"best_mask": best_mask, "pointer": pointer, "object_score": score}


def targets(batch: Batch) -> Tensor:
    """Covered share of each cell, [R,T,S/2,S/2] float32."""
    return F.avg_pool2d(object_masks(batch), TARGET_STRIDE)


def object_masks(batch: Batch) -> Tensor:
    """Masks of 0 and 1, [R,T,S,S] float32."""
    ids = torch.arange(1, batch.objects + 1, dtype=torch.uint8)
    return (batch.ids[:, None] == ids[:, None, None, None]).flatten(0, 1).float()


def correcting_click(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Click in the wrong region of masks [R,1,h,w]: coords [R,1,2], labels [R,1].

    Without an error the click is on the object, or on the background if the object is absent.
    """
    truth = F.interpolate(target[:, None], size=logits.shape[-2:], mode="area") >= 0.5
    wrong = ((logits > 0) != truth).flatten(1).float()
    spare = truth.flatten(1).float()
    spare = torch.where(spare.sum(dim=1, keepdim=True) > 0, spare, torch.ones_like(spare))
    weight = torch.where(wrong.sum(dim=1, keepdim=True) > 0, wrong, spare)
    cell = torch.multinomial(weight, 1)
    width = logits.shape[-1]
    xy = torch.cat([cell % width, cell // width], dim=1).float()
    inside = truth.flatten(1).gather(1, cell)
    labels = torch.where(inside, LABEL_FOREGROUND, LABEL_BACKGROUND)
    stride = STRIDE / MASK_PIXELS
    return (xy * stride + (stride - 1) / 2)[:, None], labels
