"""The exported graphs as PyTorch modules over the submodules of a `Sam2VideoModel`.

Each forward takes and returns the tensors of `sam2_edge.contract`, in its order. Everything that
depends on weights is in here; which tensors meet which is the runtime's business. All operations
are differentiable and share the model's parameters, so the same modules serve training; there, and
only there, `embedding` may have B rows of its own instead of one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Sam2VideoModel

from sam2_edge.contract import MASK_STRIDE, Graph, MemoryPooling, MemoryRounding
from sam2_edge.models.hiera import block_output
from sam2_edge.models.mask_decoder import MaskDecoder
from sam2_edge.models.memory_attention import MemoryAttention

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""ImageNet's mean and standard deviation of RGB in 0..1, with which SAM 2 is trained."""

MASK_PROMPT_SCALE, MASK_PROMPT_BIAS = 20.0, -10.0
"""A mask prompt becomes logits of +10 and -10 (SAM 2, `_use_mask_as_output`)."""

FEW_CHANNELS = 32
"""Below so many channels, layer normalisation is written out."""


def graph_modules(
    model: Sam2VideoModel,
    *,
    memory_rounding: MemoryRounding = "bfloat16",
    memory_pooling: MemoryPooling = 1,
) -> dict[Graph, nn.Module]:
    """One module per graph of the contract, in evaluation mode if the model is."""
    modules: dict[Graph, nn.Module] = {
        Graph.IMAGE_ENCODER: ImageEncoder(model),
        Graph.MEMORY_ATTENTION: MemoryAttention(model, pooling=memory_pooling),
        Graph.MASK_PROMPT: MaskPrompt(model),
        Graph.MASK_DECODER: MaskDecoder(model),
        Graph.MEMORY_ENCODER: MemoryEncoder(model, rounding=memory_rounding),
    }
    for module in modules.values():
        module.train(model.training)
    return modules


class ImageEncoder(nn.Module):
    """image uint8 [1,S,S,3] RGB -> high_res_0, high_res_1, embedding, unconditioned."""

    mean: Tensor
    std: Tensor
    position: Tensor

    def __init__(self, model: Sam2VideoModel) -> None:
        super().__init__()
        self.backbone = model.vision_encoder.backbone
        self.neck = model.vision_encoder.neck
        self.conv_s0 = model.mask_decoder.conv_s0
        self.conv_s1 = model.mask_decoder.conv_s1
        self.no_memory = model.no_memory_embedding
        self.levels = model.config.vision_config.num_feature_levels
        for name, values in (("mean", IMAGE_MEAN), ("std", IMAGE_STD)):
            channels = 255.0 * torch.tensor(values).reshape(3, 1, 1)
            self.register_buffer(name, channels, persistent=False)
        # In the graph it would be a bicubic Resize of a parameter, which runtimes interpolate
        # differently: constant, except in training.
        position = self._position(int(model.config.image_size)).detach()
        self.register_buffer("position", position, persistent=False)

    def _position(self, image_size: int) -> Tensor:
        """The backbone's position encoding [1,S/4,S/4,D] at an image size in pixels."""
        side = image_size // MASK_STRIDE
        window = self.backbone.pos_embed_window
        spread = F.interpolate(self.backbone.pos_embed, size=(side, side), mode="bicubic")
        tiles = side // window.shape[-1]
        return (spread + window.tile(1, 1, tiles, tiles)).permute(0, 2, 3, 1).contiguous()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features of one image; shapes as in the contract."""
        # Turned first: a channel in one piece broadcasts faster. (TensorRT turns no bytes.)
        pixels = (image.float().permute(0, 3, 1, 2) - self.mean) / self.std
        position = self._position(image.shape[1]) if self.training else self.position
        hidden = self.backbone.patch_embed(pixels) + position
        stages = []
        for index, block in enumerate(self.backbone.blocks):
            hidden = block_output(block, hidden)
            if index in self.backbone.stage_ends:
                stages.append(hidden)
        features, _ = self.neck(tuple(stages))
        # The neck returns low to high resolution; the graph gives high to low.
        finest, middle, embedding = features[-self.levels :][::-1]
        no_memory = self.no_memory.reshape(1, -1, 1, 1)
        return self.conv_s0(finest), self.conv_s1(middle), embedding, embedding + no_memory


class MaskPrompt(nn.Module):
    """mask float32 [B,1,S,S] of 0 and 1 -> mask_input (for the decoder), mask_logits.

    The reduction by 4 is PyTorch's antialiased bilinear one, written as a convolution: a triangle
    of 8 taps, renormalised at the border (Resize with antialias is not to be had everywhere).
    """

    taps: Tensor
    weight_sum: Tensor

    def __init__(self, model: Sam2VideoModel) -> None:
        super().__init__()
        self.downsample = model.mask_downsample
        taps = 1.0 - (torch.arange(8) - 3.5).abs() / MASK_STRIDE
        self.register_buffer("taps", torch.outer(taps, taps)[None, None], persistent=False)
        size = int(model.config.image_size)
        ones = torch.ones(1, 1, size, size)
        self.register_buffer("weight_sum", self._reduce(ones), persistent=False)

    def _reduce(self, mask: Tensor) -> Tensor:
        return F.conv2d(mask, self.taps, stride=MASK_STRIDE, padding=2)

    def forward(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The mask as the decoder sees it, and as logits."""
        logits = self._reduce(mask * MASK_PROMPT_SCALE + MASK_PROMPT_BIAS) / self.weight_sum
        return self.downsample(mask), logits


class MemoryEncoder(nn.Module):
    """embedding, mask_logits, object_score, binarize -> memory.

    rounding: "bfloat16" rounds what is stored as the published predictor does (the tensor stays
    float32), "none" does not.
    """

    def __init__(self, model: Sam2VideoModel, *, rounding: MemoryRounding) -> None:
        super().__init__()
        self.encoder = model.memory_encoder
        self.scale = float(model.config.sigmoid_scale_for_mem_enc)
        self.bias = float(model.config.sigmoid_bias_for_mem_enc)
        self.absent = model.occlusion_spatial_embedding_parameter
        self.size = int(model.config.image_size)
        self.round_to_bfloat16 = rounding == "bfloat16"

    def forward(
        self, embedding: Tensor, mask_logits: Tensor, object_score: Tensor, binarize: Tensor
    ) -> Tensor:
        """Memory [B,m,h,w] of a frame for B objects."""
        logits = F.interpolate(
            mask_logits, size=(self.size, self.size), mode="bilinear", align_corners=False
        )
        hard = (logits > 0).to(logits.dtype)
        mask = torch.where(binarize[:, None, None, None] > 0, hard, logits.sigmoid())
        mask = self._downsampled(mask * self.scale + self.bias)
        hidden = self.encoder.feature_projection(embedding) + mask
        memory = self.encoder.projection(self.encoder.memory_fuser(hidden))
        if self.absent is not None:
            gone = (object_score <= 0).to(memory.dtype)[:, None, None, None]
            memory = memory + gone * self.absent.reshape(1, -1, 1, 1)
        if self.round_to_bfloat16:
            memory = memory.to(torch.bfloat16).to(torch.float32)
        return memory

    def _downsampled(self, mask: Tensor) -> Tensor:
        """A mask [B,1,S,S] as features of the embedding's size [B,C,h,w]."""
        downsampler = self.encoder.mask_downsampler
        for layer in downsampler.layers:
            mask = layer.activation(_normalised(layer.layer_norm, layer.conv(mask)))
        return downsampler.final_conv(mask)


def _normalised(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Layer normalisation over the channels of [B,C,H,W].

    ONNX Runtime's operator goes cell by cell: with 4 channels that takes several times as long as
    arithmetic on whole channels.
    """
    if x.shape[1] >= FEW_CHANNELS:
        return norm(x)
    centred = x - x.mean(dim=1, keepdim=True)
    scale = torch.rsqrt((centred * centred).mean(dim=1, keepdim=True) + norm.eps)
    return centred * scale * norm.weight[:, None, None] + norm.bias[:, None, None]
