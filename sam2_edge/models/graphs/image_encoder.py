"""The image encoder graph as a PyTorch module: pixels become features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Sam2VideoModel

from sam2_edge.bundle.contract import MASK_STRIDE, GraphTarget
from sam2_edge.models.graphs.hiera import block_output

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of RGB in 0..1 that SAM 2 is trained with (ImageNet's)."""


class ImageEncoder(nn.Module):
    """image uint8 [1,S,S,3] RGB -> high_res_0, high_res_1, embedding, unconditioned."""

    mean: Tensor
    std: Tensor
    position: Tensor

    def __init__(self, model: Sam2VideoModel, *, target: GraphTarget = "cpu") -> None:
        super().__init__()
        self.tiled = target == "cpu"
        self.backbone = model.vision_encoder.backbone
        self.neck = model.vision_encoder.neck
        self.conv_s0 = model.mask_decoder.conv_s0
        self.conv_s1 = model.mask_decoder.conv_s1
        self.no_memory = model.no_memory_embedding
        self.levels = model.config.vision_config.num_feature_levels
        for name, values in (("mean", IMAGE_MEAN), ("std", IMAGE_STD)):
            channels = 255.0 * torch.tensor(values).reshape(3, 1, 1)
            self.register_buffer(name, channels, persistent=False)
        # Constant, except in training: runtimes differ in bicubic interpolation.
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
        # As float first: TensorRT does not transpose bytes. Contiguous channels broadcast faster.
        pixels = (image.float().permute(0, 3, 1, 2) - self.mean) / self.std
        position = self._position(image.shape[1]) if self.training else self.position
        hidden = self.backbone.patch_embed(pixels) + position
        stages = []
        for index, block in enumerate(self.backbone.blocks):
            hidden = block_output(block, hidden, tiled=self.tiled)
            if index in self.backbone.stage_ends:
                stages.append(hidden)
        features, _ = self.neck(tuple(stages))
        # The neck returns low to high resolution, the graph high to low.
        finest, middle, embedding = features[-self.levels :][::-1]
        no_memory = self.no_memory.reshape(1, -1, 1, 1)
        return self.conv_s0(finest), self.conv_s1(middle), embedding, embedding + no_memory
