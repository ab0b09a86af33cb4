"""Losses of one decoding, as the SAM 2 paper states them (appendix D.2.2, "Training").

Focal and dice loss on the mask at 20 to 1, absolute error of the predicted IoU, and cross entropy
of the object score, each of weight 1; of several masks only that with the lowest loss is trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

FOCAL_WEIGHT, DICE_WEIGHT, IOU_WEIGHT, SCORE_WEIGHT = 20.0, 1.0, 1.0, 1.0
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0


@dataclass(frozen=True, slots=True)
class Decoding:
    """One run of the mask decoder and its target.

    Attributes:
        masks: [R,4,h,w] logits.
        iou: [R,4].
        object_score: [R].
        target: [R,H,W] in 0..1 at any resolution.
        multimask: Train masks 1 to 3, otherwise mask 0.
    """

    masks: Tensor
    iou: Tensor
    object_score: Tensor
    target: Tensor
    multimask: bool


def loss_of(decoding: Decoding) -> dict[str, Tensor]:
    """The parts "focal", "dice", "iou", "score" (unweighted means) and the weighted "total"."""
    chosen = slice(1, 4) if decoding.multimask else slice(0, 1)
    target = decoding.target
    present = (target.flatten(1).amax(dim=1) > 0).to(target.dtype)
    logits = F.interpolate(
        decoding.masks[:, chosen], size=target.shape[-2:], mode="bilinear", align_corners=False
    )
    truth = target[:, None].expand_as(logits)
    focal, dice = focal_loss(logits, truth), dice_loss(logits, truth)
    best = (FOCAL_WEIGHT * focal + DICE_WEIGHT * dice).argmin(dim=1, keepdim=True)
    error = (decoding.iou[:, chosen] - iou_of(logits, truth)).abs().mean(dim=1)
    parts = {
        "focal": _mean(focal.gather(1, best)[:, 0], present),
        "dice": _mean(dice.gather(1, best)[:, 0], present),
        "iou": _mean(error, present),
        "score": F.binary_cross_entropy_with_logits(decoding.object_score, present),
    }
    weights = (FOCAL_WEIGHT, DICE_WEIGHT, IOU_WEIGHT, SCORE_WEIGHT)
    parts["total"] = sum(
        (w * part for w, part in zip(weights, parts.values(), strict=True)), torch.zeros(())
    )
    return parts


def focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Focal loss (Lin et al. 2017) per mask: [R,K,H,W] twice -> [R,K]."""
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    wrong = probability + target - 2 * probability * target
    alpha = FOCAL_ALPHA * target + (1 - FOCAL_ALPHA) * (1 - target)
    return (alpha * wrong**FOCAL_GAMMA * entropy).flatten(2).mean(dim=2)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Dice loss per mask: [R,K,H,W] twice -> [R,K]."""
    probability = logits.sigmoid().flatten(2)
    truth = target.flatten(2)
    overlap = 2 * (probability * truth).sum(dim=2)
    return 1 - (overlap + 1) / (probability.sum(dim=2) + truth.sum(dim=2) + 1)


@torch.no_grad()
def iou_of(logits: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of logits [...,H,W] with targets -> [...]."""
    predicted, truth = logits > 0, target >= 0.5
    overlap = (predicted & truth).flatten(-2).sum(dim=-1)
    union = (predicted | truth).flatten(-2).sum(dim=-1)
    return overlap / union.clamp(min=1)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1)
