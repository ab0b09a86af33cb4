"""A quick figure on held-out clips during training; `sam2_edge.evaluation` has the full one."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from sam2_edge.bundle.contract import LABEL_FOREGROUND
from sam2_edge.synthetic import center_click, clip
from tools.nano.data import Batch
from tools.nano.losses import Decoding, iou_of
from tools.nano.recipe import Phase
from tools.nano.rollout import Rollout

IMAGES = 192
"""Frames that are scored, in clips of the phase's length."""

MAX_FRAMES = 8


@torch.no_grad()
def validate(rollout: Rollout, phase: Phase) -> dict[str, float]:
    """Score masks from one center click.

    Returns:
        Over frames that show the object, the mean IoU of the mask that the model ranks first
        ("iou") and of its best mask ("best_iou"); the share of frames with correct presence
        ("presence"); the IoU on the last frame of clips ("last_iou").
    """
    frames = min(phase.frames, MAX_FRAMES)
    ranked, best, last, right = [], [], [], []
    for first in range(0, IMAGES // frames, phase.clips):
        batch = _batch(range(first, first + phase.clips), frames, phase)
        for now, decodings in enumerate(rollout.run(batch)):
            seen, iou, top, correct = _judge(decodings[-1])
            ranked.append(iou[seen])
            best.append(top[seen])
            right.append(correct.float())
            if now == frames - 1:
                last.append(iou[seen])
    names = ("iou", "best_iou", "last_iou", "presence")
    lists = (ranked, best, last, right)
    return {n: round(torch.cat(x).mean().item(), 4) for n, x in zip(names, lists, strict=True)}


def _batch(seeds: range, frames: int, phase: Phase) -> Batch:
    clips = [
        clip(
            seed,
            frames=frames,
            size=phase.size,
            objects=phase.objects,
            split="heldout",
            span=phase.span,
        )
        for seed in seeds
    ]
    firsts = itertools.product(clips, range(1, phase.objects + 1))
    clicks = [center_click(c.mask(0, object_id)) for c, object_id in firsts]
    return Batch(
        frames=torch.from_numpy(np.stack([c.frames[..., ::-1] for c in clips])),
        ids=torch.from_numpy(np.stack([c.masks for c in clips])),
        kind="click",
        coords=torch.tensor(clicks)[:, None],
        labels=torch.full((len(clicks), 1), LABEL_FOREGROUND),
        corrections=(),
        objects=phase.objects,
    )


def _judge(decoding: Decoding) -> tuple[torch.Tensor, ...]:
    """seen, IoU of the mask ranked first, of the best mask, presence right; each [R]."""
    masks = decoding.masks[:, 1:]
    size = decoding.target.shape[-2:]
    masks = torch.nn.functional.interpolate(masks, size=size, mode="bilinear")
    iou = iou_of(masks, decoding.target[:, None].expand_as(masks))
    ranked = iou.gather(1, decoding.iou[:, 1:].argmax(dim=1, keepdim=True))[:, 0]
    seen = decoding.target.flatten(1).amax(dim=1) >= 0.5
    present = decoding.object_score > 0
    return seen, ranked * present, iou.amax(dim=1), present == seen
