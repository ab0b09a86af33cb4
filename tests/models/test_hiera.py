"""The image encoder's blocks against transformers' own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sam2_edge.models.random_init import random_model
from sam2_edge.models.sam2 import hiera
from sam2_edge.models.sam2.hiera import block_output
from tests.helpers.models import SEED, small_config


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("size", [128, 192])
@torch.inference_mode()
def test_blocks_agree_with_and_without_window_padding(
    size: int, tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hiera, "QUERY_TILE", 24)  # several tiles, the last of them smaller
    model = random_model(small_config(size), SEED)
    for module in model.modules():  # padding is filled with the bias
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.normal_(generator=torch.Generator().manual_seed(1))
    backbone = model.vision_encoder.backbone
    image = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    hidden = backbone.patch_embed(image)
    filled = 0
    for block in backbone.blocks:
        filled += bool(block.window_size and hidden.shape[1] % block.window_size)
        want = block(hidden)
        got = block_output(block, hidden, tiled=tiled)
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
        hidden = want
    assert filled >= 2
