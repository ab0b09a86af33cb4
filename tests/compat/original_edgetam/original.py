"""Original EdgeTAM with random weights, in a process in which its package is the one named sam2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from tests.compat.original import torchvision_shim
from tests.compat.original_edgetam.sessions import CONFIG, OVERRIDES

with torchvision_shim.substitute_if_missing():
    from sam2 import sam2_video_predictor
    from sam2.build_sam import build_sam2_video_predictor
    from sam2.modeling.backbones import timm as backbone
    from sam2.sam2_image_predictor import SAM2ImagePredictor

SPREAD = 0.3
"""Standard deviation of parameters that are constant in a fresh model."""

ATTENTION_GAIN = 2.0
"""On queries and keys: without it, attention over thousands of keys only averages."""

POINTER_GAIN = 3.0
"""On object pointers: without it, they would not count among thousands of keys."""

SCORE_GAIN = 8.0
"""On object scores: objects are judged present or absent, and never by a narrow margin."""


class _WithoutBfloat16:
    """The module torch, with a name that makes conversions to bfloat16 do nothing."""

    bfloat16 = torch.float32

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def memory_in_float32() -> Iterator[None]:
    """Keep the original from rounding memory, after which results agree only roughly."""
    with patch.object(sam2_video_predictor, "torch", _WithoutBfloat16()):
        yield


def build() -> Any:
    """The original's video predictor on the CPU, without pretrained weights of its backbone."""
    create = backbone.create_model

    def create_bare(name: str, **options: Any) -> nn.Module:
        return create(name, **{**options, "pretrained": False})

    with patch.object(backbone, "create_model", create_bare):
        return build_sam2_video_predictor(CONFIG, device="cpu", hydra_overrides_extra=OVERRIDES)


def image_predictor(model: Any) -> Any:
    """The original's image predictor for the size of `model`; it assumes 1024 pixels."""
    predictor = SAM2ImagePredictor(model)
    predictor._bb_feat_sizes = [(model.image_size // stride,) * 2 for stride in (4, 8, 16)]
    return predictor


def draw_weights(model: nn.Module) -> None:
    """Draw weights with which every layer keeps the scale of its input and nothing is constant."""
    with torch.no_grad():
        for module in model.modules():
            _draw(module)
        for name, parameter in model.named_parameters():
            _vary(name, parameter)
        _record_statistics(model.image_encoder.trunk)


def _draw(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        module.weight.normal_(0.0, module.weight[0].numel() ** -0.5)
    elif isinstance(module, nn.ConvTranspose2d):  # kernel and stride are both 2: one tap per pixel
        module.weight.normal_(0.0, module.in_channels**-0.5)
    elif isinstance(module, nn.Embedding):
        module.weight.normal_(0.0, 1.0)


def _vary(name: str, parameter: nn.Parameter) -> None:
    if name.endswith(".gamma"):
        parameter.normal_(0.5, SPREAD)
    elif name.endswith(("q_proj.weight", "k_proj.weight", "to_q.weight")):
        parameter.mul_(ATTENTION_GAIN)
    elif name == "obj_ptr_proj.layers.2.weight":
        parameter.mul_(POINTER_GAIN)
    elif name == "sam_mask_decoder.pred_obj_score_head.layers.2.weight":
        parameter.mul_(SCORE_GAIN)
    elif parameter.min() == parameter.max():
        parameter.add_(SPREAD * torch.randn_like(parameter))


def _record_statistics(trunk: nn.Module) -> None:
    """Give batch normalization the statistics of an image, or activations would grow with depth."""
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    trunk.train()
    trunk(torch.randn(1, 3, 256, 256))
    trunk.eval()
