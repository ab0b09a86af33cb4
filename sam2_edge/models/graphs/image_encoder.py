"""The image encoder graph as a PyTorch module: pixels become features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sam2_edge.bundle.contract import GraphTarget
from sam2_edge.models.families import family_of


class ImageEncoder(nn.Module):
    """image uint8 [1,S,S,3] RGB -> high_res_0, high_res_1, embedding, unconditioned."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, *, target: GraphTarget = "cpu") -> None:
        super().__init__()
        family = family_of(model.config)
        self.features = family.features(model, target)
        self.no_memory = model.no_memory_embedding
        for name, values in (("mean", family.mean), ("std", family.std)):
            channels = 255.0 * torch.tensor(values).reshape(3, 1, 1)
            self.register_buffer(name, channels, persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features of one image; shapes as in the contract."""
        # As float first: TensorRT does not transpose bytes. Contiguous channels broadcast faster.
        pixels = (image.float().permute(0, 3, 1, 2) - self.mean) / self.std
        high_res_0, high_res_1, embedding = self.features(pixels)
        no_memory = self.no_memory.reshape(1, -1, 1, 1)
        return high_res_0, high_res_1, embedding, embedding + no_memory
