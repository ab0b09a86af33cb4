"""SAM 3's graph modules against transformers, and where that differs, the published arithmetic."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Sam3TrackerVideoModel

from sam2_edge.bundle.agreement import decided_logits
from sam2_edge.bundle.contract import Graph, GraphTarget
from sam2_edge.models.families import geometry_of
from sam2_edge.models.graphs import graph_modules
from sam2_edge.models.random_init import random_model
from sam2_edge.models.sam3 import vit
from tests.helpers.sam3 import IMAGE_SIZE, SEED, small_config

SIDE = 24


@pytest.fixture(scope="module")
def model() -> Sam3TrackerVideoModel:
    return random_model(small_config(), SEED)


def _noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _disc(size: int) -> Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((y - 150) ** 2 + (x - 100) ** 2 < 71**2).float()[None, None]


@pytest.mark.parametrize("target", get_args(GraphTarget))
@pytest.mark.parametrize(
    ("size", "window"), [(IMAGE_SIZE, 8), (672, 24)], ids=["nine small windows", "four windows"]
)
@torch.no_grad()
def test_the_image_encoder_gives_the_features_of_transformers(
    size: int, window: int, target: GraphTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vit, "QUERY_TILE", 100)  # several tiles, the last of them smaller
    config = small_config(size, window_size=window, pretrain_image_size=14 * window)
    model = random_model(config, SEED)
    image = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8)
    want = model.get_image_features((image / 127.5 - 1).permute(0, 3, 1, 2)).fpn_hidden_states

    *got, unconditioned = graph_modules(model, target=target)[Graph.IMAGE_ENCODER](image)

    for ours, theirs in zip(got, want, strict=True):
        expected = theirs.permute(1, 2, 0).reshape(ours.shape)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)
    assert torch.equal(unconditioned, got[2] + model.no_memory_embedding.reshape(1, -1, 1, 1))


@torch.no_grad()
def test_a_mask_prompt_is_reduced_by_a_fraction_and_enlarged_for_the_decoder(
    model: Sam3TrackerVideoModel,
) -> None:
    mask = torch.cat([_disc(IMAGE_SIZE), (_noise(1, 1, 1, IMAGE_SIZE, IMAGE_SIZE) > 0.5).float()])

    mask_input, logits = graph_modules(model)[Graph.MASK_PROMPT](mask)

    low = (4 * SIDE, 4 * SIDE)
    want = F.interpolate(20 * mask - 10, size=low, mode="bilinear", antialias=True)
    torch.testing.assert_close(logits, want, rtol=0, atol=1e-5)
    # As `add_new_mask` of the published predictor; transformers reduces before it resizes.
    large = F.interpolate(mask, size=(16 * SIDE, 16 * SIDE), mode="bilinear", antialias=True)
    torch.testing.assert_close(mask_input, model.mask_downsample(large), rtol=0, atol=1e-5)


@pytest.mark.parametrize("binarize", [0, 1])
@torch.no_grad()
def test_a_memory_is_made_from_a_mask_that_is_enlarged_after_the_sigmoid(
    model: Sam3TrackerVideoModel, binarize: int
) -> None:
    embedding, logits = _noise(2, 1, 128, SIDE, SIDE), 5 * _noise(3, 2, 1, 4 * SIDE, 4 * SIDE)
    score = torch.tensor([1.0, -1.0])
    module = graph_modules(model, memory_rounding="none")[Graph.MEMORY_ENCODER]

    got = module(embedding, logits, score, torch.full((2,), binarize, dtype=torch.int32))

    # As `SimpleMaskDownSampler` of the published predictor.
    pixels = F.interpolate(logits, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear")
    mask = 20 * ((pixels > 0).float() if binarize else pixels.sigmoid()) - 10
    mask = F.interpolate(mask, size=(16 * SIDE, 16 * SIDE), mode="bilinear", antialias=True)
    want, _ = model.memory_encoder(embedding.expand(2, -1, -1, -1), mask)
    want[1] += model.occlusion_spatial_embedding_parameter[0, :, None, None]
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("stride", [14, 16])
def test_logits_for_checks_keep_away_from_zero_when_they_are_enlarged(stride: int) -> None:
    logits = torch.from_numpy(decided_logits(_noise(4, 1, 1, 96, 96).double().numpy()))
    side = stride * SIDE
    pixels = F.interpolate(logits, size=(side, side), mode="bilinear")
    assert pixels.abs().min() > 1 / 49 - 1e-6
    assert 0.4 < (pixels > 0).double().mean() < 0.6
    assert 5 < pixels.std() < 15


def test_the_geometry_follows_from_patches_of_14_pixels(model: Sam3TrackerVideoModel) -> None:
    geometry = geometry_of(model.config)
    assert (geometry.stride, geometry.embedding_size, geometry.mask_size) == (14, 24, 96)
    assert geometry.memory_shape == (64, 24, 24)
