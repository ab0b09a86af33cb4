"""Random weights that exercise every path of the model, for tests and demos."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from sam2_edge.models.families import family_of

SPREAD = 0.3
"""Standard deviation of parameters that are constant in a fresh model."""

ATTENTION_GAIN = 2.0
"""Factor on query and key weights: without it, attention over hundreds of keys only averages."""

POINTER_GAIN = 3.0
"""Factor on object pointers and on the encoding of their age: without it, a wrong pointer would not
show among hundreds of memory tokens."""

RESIDUAL_GAIN = 0.1
"""Mean weight of the last normalization of residual branches. Training starts with blocks that are
nearly the identity (Goyal et al., arXiv:1706.02677, section 5.1); without that, dozens of random
blocks amplify the rounding of INT8 until nothing else counts."""

_RESIDUAL_NORMS = (
    "token_mixer.conv.bn",
    "token_mixer.conv1.bn",
    "channel_mixer.conv2.bn",
    "ffn.conv2.bn",
)
"""Ends of the names of these normalizations in RepViT."""

_POINTER_WEIGHTS = (
    "object_pointer_proj.proj_out.weight",
    "temporal_positional_encoding_projection_layer.weight",
)


def random_model(config: PreTrainedConfig, seed: int) -> Any:
    """A model in evaluation mode with random weights.

    A fresh model has weights of 0.02, embeddings of zero and a layer scale of 1e-6: its masks do
    not depend on memory and prompts, so wrong wiring would go unnoticed. Here every layer keeps the
    scale of its input, and nothing is constant.
    """
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        model = family_of(config).model_class(config).eval()
        with torch.no_grad():
            for module in model.modules():
                _scale_weights(module)
            for name, parameter in model.named_parameters():
                _vary(name, parameter)
            # Points and image share their frequencies in SAM 2; transformers keeps them twice.
            frequencies = model.prompt_encoder.shared_embedding.positional_embedding
            model.shared_image_embedding.positional_embedding.copy_(frequencies)
        settle_norms(model.vision_encoder.backbone, torch.randn(1, 3, 256, 256))
    finally:
        torch.random.set_rng_state(state)
    return model


@torch.no_grad()
def settle_norms(module: nn.Module, example: Tensor) -> None:
    """Set the statistics of batch normalization to those of an example.

    Without it, outputs grow from block to block until nothing else counts.
    """
    norms = [each for each in module.modules() if isinstance(each, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None  # statistics become the mean of all examples, which is one
        norm.reset_running_stats()
    module.train()
    module(example)
    module.eval()


def _scale_weights(module: nn.Module) -> None:
    """Draw weights of standard deviation 1 / sqrt(inputs), so that outputs scale like inputs."""
    if isinstance(module, nn.Linear):
        module.weight.normal_(0.0, module.in_features**-0.5)
    elif isinstance(module, nn.Conv2d):
        module.weight.normal_(0.0, module.weight[0].numel() ** -0.5)
    elif isinstance(module, nn.ConvTranspose2d):  # kernel and stride are both 2: one tap per pixel
        module.weight.normal_(0.0, module.in_channels**-0.5)
    elif isinstance(module, nn.Embedding):
        module.weight.normal_(0.0, 1.0)


def _vary(name: str, parameter: Tensor) -> None:
    if name.endswith(".scale"):
        parameter.normal_(0.5, SPREAD)
    elif name.endswith(("q_proj.weight", "k_proj.weight")):
        parameter.mul_(ATTENTION_GAIN)
    elif name in _POINTER_WEIGHTS:
        parameter.mul_(POINTER_GAIN)
    elif name.removesuffix(".weight").endswith(_RESIDUAL_NORMS):
        parameter.normal_(RESIDUAL_GAIN, SPREAD * RESIDUAL_GAIN)
    elif parameter.min() == parameter.max():
        parameter.add_(SPREAD * torch.randn_like(parameter))
