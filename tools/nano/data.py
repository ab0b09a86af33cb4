"""Training batches by step number: synthetic clips with a prompt for every object.

A batch is a pure function of seed, phase and step, so that a resumed run sees the same batches as
an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sam2_edge.bundle.contract import (
    LABEL_BOX_BOTTOM_RIGHT,
    LABEL_BOX_TOP_LEFT,
    LABEL_FOREGROUND,
    LABEL_PAD,
)
from sam2_edge.synthetic import SyntheticClip, center_click, clip
from tools.nano.recipe import Phase

PromptKind = Literal["click", "clicks", "box", "mask"]
Mask = NDArray[np.bool_]
Image = NDArray[np.uint8]

IMAGE_KINDS: dict[PromptKind, float] = {"click": 0.55, "clicks": 0.1, "box": 0.2, "mask": 0.15}
"""Shares of prompt kinds among batches; a batch has one kind, so no row needs padding."""

CLIP_KINDS: dict[PromptKind, float] = {"click": 0.25, "box": 0.25, "mask": 0.5}
"""The same for clips (SAM 2 paper, appendix D.2.2)."""

CENTER_SHARE = 0.4
"""Share of clicks on the center of the object; the others are anywhere on it."""

BOX_JITTER = 0.1
"""Largest shift of a box side, relative to the box (SAM paper, appendix A: a tenth)."""

CORRECTED_IMAGES = 0.35
"""Share of batches whose first frame gets a correcting click."""

MAX_REDRAWS = 6
"""Clips drawn until an object leaves the picture in one, see `Phase.lost`."""


@dataclass(frozen=True, slots=True)
class Batch:
    """C clips of T frames with O objects each; R = C * O rows, clip by clip.

    Attributes:
        frames: [C,T,S,S,3] uint8 RGB.
        ids: [C,T,S,S] uint8, object 1 to O, or 0.
        kind: Of the first frame's prompt.
        coords: [R,N,2] float32, pixels.
        labels: [R,N] int32.
        corrections: Frames whose result is corrected by a click.
    """

    frames: Tensor
    ids: Tensor
    kind: PromptKind
    coords: Tensor
    labels: Tensor
    corrections: tuple[int, ...]
    objects: int


class Batches(Dataset[Batch]):
    """The batches of one phase, by step number."""

    def __init__(self, phase: Phase, seed: int) -> None:
        self._phase, self._seed = phase, seed

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step; clip seeds of different steps differ."""
        cv2.setNumThreads(1)
        phase = self._phase
        rng = np.random.default_rng([self._seed, phase.size, phase.frames, step])
        clips = [self._clip(rng) for _ in range(phase.clips)]
        shares = CLIP_KINDS if phase.frames > 1 else IMAGE_KINDS
        kind: PromptKind = rng.choice(list(shares), p=list(shares.values()))
        prompts = [
            draw_prompt(rng, kind, ids[0] == i + 1)
            for _, ids in clips
            for i in range(phase.objects)
        ]
        corrections = [0] if kind != "mask" and rng.random() < CORRECTED_IMAGES else []
        if phase.frames > 1 and rng.random() < phase.corrected:
            corrections.append(int(rng.integers(1, phase.frames)))
        return Batch(
            frames=torch.from_numpy(np.stack([frames for frames, _ in clips])),
            ids=torch.from_numpy(np.stack([ids for _, ids in clips])),
            kind=kind,
            coords=torch.from_numpy(np.stack([p[0] for p in prompts])),
            labels=torch.from_numpy(np.stack([p[1] for p in prompts])),
            corrections=tuple(corrections),
            objects=phase.objects,
        )

    def _clip(self, rng: np.random.Generator) -> tuple[Image, Image]:
        """Frames [T,S,S,3], ids [T,S,S] of a clip, rotated, mirrored, with channels permuted."""
        drawn = self._drawn(rng)
        turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
        frames, ids = drawn.frames[..., rng.permutation(3)], drawn.masks
        frames, ids = np.rot90(frames, turns, axes=(1, 2)), np.rot90(ids, turns, axes=(1, 2))
        if mirrored:
            frames, ids = frames[:, :, ::-1], ids[:, :, ::-1]
        return np.ascontiguousarray(frames), np.ascontiguousarray(ids)

    def _drawn(self, rng: np.random.Generator) -> SyntheticClip:
        phase = self._phase
        make = _pooled_clip if phase.pool else clip
        tries = MAX_REDRAWS if rng.random() < phase.lost else 1
        for _ in range(tries):
            drawn = make(
                int(rng.integers(phase.pool or 2**40)),
                frames=phase.frames,
                size=phase.size,
                objects=phase.objects,
                span=phase.span,
            )
            if not drawn.present.all():
                break
        return drawn


@cache
def _pooled_clip(
    seed: int, *, frames: int, size: int, objects: int, span: int | None
) -> SyntheticClip:
    return clip(seed, frames=frames, size=size, objects=objects, span=span)


def batches(phase: Phase, seed: int, start: int, workers: int) -> Iterator[Batch]:
    """Batches of a phase from step `start` on, prefetched by other processes."""
    loader = DataLoader(
        Batches(phase, seed),
        batch_size=None,
        sampler=range(start, phase.steps),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        # A fork of a process whose PyTorch and OpenCV have threads hangs.
        multiprocessing_context="spawn" if workers else None,
    )
    return iter(loader)


def draw_prompt(
    rng: np.random.Generator, kind: PromptKind, mask: Mask
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """A prompt for a mask [S,S]: coords [N,2] float32, labels [N] int32."""
    if kind == "mask":
        return np.zeros((1, 2), np.float32), np.array([LABEL_PAD], np.int32)
    if kind == "box":
        labels = np.array([LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT], np.int32)
        return _box(rng, mask), labels
    count = 1 if kind == "click" else 2
    clicks = np.stack([_click(rng, mask) for _ in range(count)])
    return clicks, np.full(count, LABEL_FOREGROUND, np.int32)


def _click(rng: np.random.Generator, mask: Mask) -> NDArray[np.float32]:
    if not mask.any():
        return np.full(2, mask.shape[0] / 2, np.float32)
    if rng.random() < CENTER_SHARE:
        return np.array(center_click(mask), np.float32)
    rows, columns = np.nonzero(mask)
    chosen = rng.integers(len(rows))
    return np.array([columns[chosen], rows[chosen]], np.float32)


def _box(rng: np.random.Generator, mask: Mask) -> NDArray[np.float32]:
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    jitter = rng.uniform(-BOX_JITTER, BOX_JITTER, 4) * (width, height, width, height)
    corners = np.array([x, y, x + width, y + height]) + jitter
    return np.clip(corners, 0, mask.shape[0]).astype(np.float32).reshape(2, 2)
