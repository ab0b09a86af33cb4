"""RepViT, the convolutional backbone of EdgeTAM, without timm (Wang et al., arXiv:2307.09283).

Submodules carry the names that timm gives them, so that published weights load as they are.
`fused` makes the module for inference, in which parallel branches are single convolutions.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from sam2_edge.errors import CheckpointError

EXPANSION = 2
"""Channels inside a channel mixer per channel of its input."""

SQUEEZE = 4
"""Channels of a block per channel of its squeeze-and-excitation, rounded to `SQUEEZE_MULTIPLE`."""

SQUEEZE_MULTIPLE = 8

PUBLISHED = "repvit_m1"
"""timm's name for the size in EdgeTAM, which `RepVitConfig` has by default."""

PUBLISHED_ARGUMENTS = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
"""Arguments with which EdgeTAM's configuration has timm build it."""


class RepVitConfig(PreTrainedConfig):  # type: ignore[misc] # transformers has no types here
    """Sizes of the backbone.

    Attributes:
        widths: Channels of each stage. The first is at stride 4, each other at twice the stride of
            the one before.
        depths: Blocks of each stage, without the one in which it reduces its input.
    """

    model_type = "sam2_edge_repvit"

    widths: tuple[int, ...] | list[int] = (48, 96, 192, 384)
    depths: tuple[int, ...] | list[int] = (2, 2, 14, 2)


def repvit_config(backbone: Mapping[str, Any]) -> RepVitConfig:
    """Return the configuration for the backbone that a published config.json names.

    Args:
        backbone: Its entry `backbone_config`, which is meant for timm.

    Raises:
        CheckpointError: It names another backbone.
    """
    given = str(backbone.get("architecture"))
    name = given.removeprefix("timm/").partition(".")[0]  # of "timm/repvit_m1.dist_in1k"
    if name != PUBLISHED:
        raise CheckpointError(
            f"the backbone is {given[:80]}; EdgeTAM is supported with {PUBLISHED} only: give a "
            "model with that backbone"
        )
    arguments = backbone.get("model_args") or {}
    if arguments != PUBLISHED_ARGUMENTS:
        raise CheckpointError(
            f"the backbone {PUBLISHED} has model_args {str(arguments)[:200]}; only "
            f"{PUBLISHED_ARGUMENTS} is supported: give a model that was built with these"
        )
    return RepVitConfig()


class ConvNorm(nn.Module):
    """A convolution without bias that keeps the size at stride 1, and batch normalization."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,C',H/stride,W/stride]."""
        return self.bn(self.c(x))

    def kernel(self) -> tuple[Tensor, Tensor]:
        """Weight and bias, float64, of the one convolution that this is in evaluation mode."""
        assert self.bn.running_mean is not None
        assert self.bn.running_var is not None
        scale = self.bn.weight.double() / (self.bn.running_var.double() + self.bn.eps).sqrt()
        bias = self.bn.bias.double() - self.bn.running_mean.double() * scale
        return self.c.weight.double() * scale[:, None, None, None], bias

    def fused(self) -> nn.Conv2d:
        """Return that convolution."""
        return _with_kernel(self.c, *self.kernel())


class TokenMixer(nn.Module):
    """Depthwise convolutions with kernels of 3 and 1 and the identity, added up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels, 3, groups=channels)
        self.conv1 = ConvNorm(channels, channels, 1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> the same shape."""
        return self.conv(x) + self.conv1(x) + x

    def fused(self) -> nn.Conv2d:
        """Return the one convolution with a kernel of 3 that this is in evaluation mode."""
        weight, bias = self.conv.kernel()
        center, center_bias = self.conv1.kernel()
        weight = weight + F.pad(center + 1.0, (1, 1, 1, 1))
        return _with_kernel(self.conv.c, weight, bias + center_bias)


class SqueezeExcite(nn.Module):
    """Scales channels by what their means over the picture say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        multiples = (channels // SQUEEZE + SQUEEZE_MULTIPLE // 2) // SQUEEZE_MULTIPLE
        squeezed = SQUEEZE_MULTIPLE * max(multiples, 1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> the same shape."""
        means = x.mean((2, 3), keepdim=True)
        return x * self.fc2(self.fc1(means).relu()).sigmoid()


class ChannelMixer(nn.Module):
    """Two convolutions with kernels of 1 and GELU between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, EXPANSION * channels, 1)
        self.conv2 = ConvNorm(EXPANSION * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> the same shape."""
        return self.conv2(F.gelu(self.conv1(x)))


class Block(nn.Module):
    """A token mixer, squeeze-and-excitation where there is one, and a channel mixer."""

    def __init__(self, channels: int, *, excited: bool) -> None:
        super().__init__()
        self.token_mixer = TokenMixer(channels)
        self.se = SqueezeExcite(channels) if excited else nn.Identity()
        self.channel_mixer = ChannelMixer(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> the same shape."""
        x = self.se(self.token_mixer(x))
        return x + self.channel_mixer(x)


class Stem(nn.Module):
    """The picture at a quarter of its size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, width // 2, 3, stride=2)
        self.conv2 = ConvNorm(width // 2, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B,3,S,S] -> [B,C,S/4,S/4]."""
        return self.conv2(F.gelu(self.conv1(x)))


class Downsample(nn.Module):
    """The way from one stage to the next: half the size, another width."""

    def __init__(self, width: int, next_width: int) -> None:
        super().__init__()
        self.pre_block = Block(width, excited=False)
        self.spatial_downsample = ConvNorm(width, width, 3, stride=2, groups=width)
        self.channel_downsample = ConvNorm(width, next_width, 1)
        self.ffn = ChannelMixer(next_width)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,C',H/2,W/2]."""
        x = self.channel_downsample(self.spatial_downsample(self.pre_block(x)))
        return x + self.ffn(x)


class Stage(nn.Module):
    """Blocks of one width, every other of them with squeeze-and-excitation."""

    def __init__(self, previous_width: int | None, width: int, depth: int) -> None:
        super().__init__()
        self.downsample = Downsample(previous_width, width) if previous_width else nn.Identity()
        self.blocks = nn.Sequential(*(Block(width, excited=i % 2 == 0) for i in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,C',H/2,W/2], or the same shape in the first stage."""
        return self.blocks(self.downsample(x))


class Features(nn.Module):
    """All layers, under the names that timm gives them if it is asked for features of a RepViT."""

    def __init__(self, config: RepVitConfig) -> None:
        super().__init__()
        self.stem = Stem(config.widths[0])
        previous = [None, *config.widths]
        stages = zip(previous, config.widths, config.depths, strict=False)
        self.stages = [f"stages_{index}" for index in range(len(config.widths))]
        for name, sizes in zip(self.stages, stages, strict=True):
            self.add_module(name, Stage(*sizes))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """[B,3,S,S] -> the result of each stage, [B,width,S/stride,S/stride]."""
        hidden = self.stem(image)
        results = []
        for name in self.stages:
            hidden = self.get_submodule(name)(hidden)
            results.append(hidden)
        return tuple(results)


class RepVitBackbone(PreTrainedModel):  # type: ignore[misc] # as above
    """The backbone as transformers' EdgeTAM calls it, in place of its wrapper around timm."""

    config_class = RepVitConfig
    main_input_name = "pixel_values"

    def __init__(self, config: RepVitConfig) -> None:
        super().__init__(config)
        self.timm_model = Features(config)  # the wrapper's name for its model
        self.post_init()

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutput:
        """Compute the features.

        Args:
            pixel_values: [B,3,S,S], normalized.
            kwargs: What transformers passes to every backbone, without effect here.

        Returns:
            `last_hidden_state` is a tuple with the result of each stage, at strides 4, 8, 16, 32.
        """
        del kwargs
        return BaseModelOutput(last_hidden_state=self.timm_model(pixel_values))


def fused(module: nn.Module) -> nn.Module:
    """Return a copy for inference, without batch normalization and parallel branches.

    Its result is that of the module in evaluation mode, up to rounding: kernels are computed in
    float64.
    """
    result = copy.deepcopy(module)
    _fuse_children(result)
    return result


def _fuse_children(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, (ConvNorm, TokenMixer)):
            setattr(module, name, child.fused())
        else:
            _fuse_children(child)


def _with_kernel(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Return a convolution like `conv` with other weights."""
    result = copy.deepcopy(conv)
    result.weight = nn.Parameter(weight.detach().to(conv.weight.dtype))
    result.bias = nn.Parameter(bias.detach().to(conv.weight.dtype))
    return result


AutoConfig.register(RepVitConfig.model_type, RepVitConfig, exist_ok=True)
AutoModel.register(RepVitConfig, RepVitBackbone, exist_ok=True)
