"""The few functions of torchvision that the original's image API calls, where it is missing.

torchvision must match the exact version of torch, and the tests need four functions of it. They are
written here from its documentation, with suppression box by box, so that they share nothing with
the code under test. timm imports many more names, of which these tests call none.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class ToTensor:
    """An image [H, W, C] uint8, or a Pillow image, as [C, H, W] float32 in 0..1."""

    def __call__(self, image: Any) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(image))
        return pixels.permute(2, 0, 1).contiguous().float() / 255


class Resize(nn.Module):
    """Antialiased bilinear; `levels` rounds to that many steps, as a file of a resized image would
    be (0 does not round).
    """

    levels = 0

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.height, self.width = size
        self.levels = Resize.levels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.shape[-2] == self.height and image.shape[-1] == self.width:
            return image
        resized = F.interpolate(
            image[None],
            size=[self.height, self.width],
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )[0]
        if self.levels > 0:
            resized = torch.round(resized * self.levels) / self.levels
        return resized


class Normalize(nn.Module):
    """Subtract the mean and divide by the standard deviation of each channel."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.mean = mean
        self.std = std

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mean = torch.tensor(self.mean).view(-1, 1, 1)
        std = torch.tensor(self.std).view(-1, 1, 1)
        return (image - mean) / std


def box_area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices of the remaining boxes, box by box in float32 as torchvision's CPU kernel."""
    order = torch.argsort(scores, descending=True, stable=True).tolist()
    corners = boxes.numpy()
    kept: list[int] = []
    for index in order:
        if not any(_overlap(corners[other], corners[index]) > iou_threshold for other in kept):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.int64)


def batched_nms(
    boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """Suppression of one category, which is all that the original uses."""
    assert not idxs.any()
    return nms(boxes, scores, iou_threshold)


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    zero = np.float32(0)
    width = max(zero, min(first[2], second[2]) - max(first[0], second[0]))
    height = max(zero, min(first[3], second[3]) - max(first[1], second[1]))
    shared = width * height
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (first, second)]
    with np.errstate(invalid="ignore"):
        return float(shared / (areas[0] + areas[1] - shared))


class _AnyName(ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _InterpolationMode(Enum):
    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


def _stand_in() -> dict[str, ModuleType]:
    """torchvision's modules by name."""
    modules: dict[str, ModuleType] = {"torchvision": ModuleType("torchvision")}
    for path in (
        "datasets",
        "models",
        "models.feature_extraction",
        "ops",
        "ops.boxes",
        "ops.misc",
        "transforms",
        "transforms.functional",
        "utils",
    ):
        name = f"torchvision.{path}"
        parent, _, own = name.rpartition(".")
        modules[name] = _AnyName(name)
        setattr(modules[parent], own, modules[name])
    modules["torchvision.transforms"].__dict__.update(
        ToTensor=ToTensor, Resize=Resize, Normalize=Normalize
    )
    modules["torchvision.transforms.functional"].__dict__.update(
        InterpolationMode=_InterpolationMode
    )
    modules["torchvision.ops.boxes"].__dict__.update(box_area=box_area, batched_nms=batched_nms)
    return modules


@contextmanager
def substitute_if_missing() -> Iterator[None]:
    """Replace torchvision only while the original is imported: transformers looks for it too."""
    if find_spec("torchvision") is not None:
        yield
        return
    modules = _stand_in()
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]
