"""EdgeTAM's graph modules against transformers, at a size at which no two grids are alike."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import EdgeTamVideoModel

from sam2_edge.bundle.contract import Graph, GraphTarget
from sam2_edge.errors import ExportError
from sam2_edge.models.families import at_image_size, geometry_of
from sam2_edge.models.graphs import graph_modules
from sam2_edge.models.random_init import random_model
from tests.helpers.models import SEED, small_edgetam_config

SIZE, SIDE = 512, 32
OBJECTS, MEMORIES, POINTERS = 2, 3, 4


@pytest.fixture(scope="module")
def model() -> EdgeTamVideoModel:
    return random_model(small_edgetam_config(SIZE), SEED)


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randint(0, 256, (1, SIZE, SIZE, 3), generator=_seeded(0), dtype=torch.uint8)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=_seeded(seed))


@torch.no_grad()
def test_the_image_encoder_gives_the_features_of_all_branches(
    model: EdgeTamVideoModel, image: Tensor
) -> None:
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    pixels = ((image / 255 - mean) / std).permute(0, 3, 1, 2)
    want = model.get_image_features(pixels).fpn_hidden_states

    *got, unconditioned = graph_modules(model)[Graph.IMAGE_ENCODER](image)

    for ours, theirs in zip(got, want, strict=True):
        expected = theirs.permute(1, 2, 0).reshape(ours.shape)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert torch.equal(unconditioned, got[2] + model.no_memory_embedding.reshape(1, -1, 1, 1))


@torch.no_grad()
def test_the_memory_encoder_takes_several_objects_at_once(model: EdgeTamVideoModel) -> None:
    embedding = _noise(1, 1, 128, SIDE, SIDE)
    logits = 5 * _noise(2, OBJECTS, 1, 4 * SIDE, 4 * SIDE)
    binarize = torch.tensor([1, 0], dtype=torch.int32)
    module = graph_modules(model, memory_rounding="none")[Graph.MEMORY_ENCODER]

    got = module(embedding, logits, torch.ones(OBJECTS), binarize)

    large = F.interpolate(logits, size=(SIZE, SIZE), mode="bilinear")
    flat = embedding.flatten(2).permute(2, 0, 1)
    for index in range(OBJECTS):  # transformers takes one
        mask = large[index : index + 1]
        want, _ = model._encode_new_memory(flat, mask, torch.ones(1, 1), bool(binarize[index]))
        assert want.shape[1:] == got.shape[1:] == (512, 64)
        torch.testing.assert_close(got[index], want[0], rtol=0, atol=1e-4)


@torch.no_grad()
def test_latents_are_rounded_last(model: EdgeTamVideoModel) -> None:
    inputs = (
        _noise(1, 1, 128, SIDE, SIDE),
        _noise(2, 1, 1, 4 * SIDE, 4 * SIDE),
        torch.ones(1),
        torch.ones(1, dtype=torch.int32),
    )
    full, rounded = (
        graph_modules(model, memory_rounding=rounding)[Graph.MEMORY_ENCODER](*inputs)
        for rounding in ("none", "bfloat16")
    )
    assert torch.equal(rounded, full.bfloat16().float())
    assert not torch.equal(rounded, full)


@torch.no_grad()
@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_memory_attention_rotates_only_the_latents_that_have_a_place(
    model: EdgeTamVideoModel, target: GraphTarget
) -> None:
    embedding, rows = _noise(3, 1, 128, SIDE, SIDE), OBJECTS * MEMORIES
    memory, pointers = _noise(4, rows, 512, 64), _noise(5, POINTERS, OBJECTS, 128)
    memory_rows = torch.arange(rows, dtype=torch.int32).flip(0).reshape(MEMORIES, OBJECTS)
    age = torch.tensor([[0, 2], [1, 0], [4, 6]], dtype=torch.int32)
    pointer_age = torch.rand(POINTERS, OBJECTS, generator=_seeded(6))
    module = graph_modules(model, target=target)[Graph.MEMORY_ATTENTION]

    got = module(embedding, memory, memory_rows, age, pointers, pointer_age)

    for index in range(OBJECTS):
        stored = memory[memory_rows[:, index].long()]
        want = _conditioned(model, embedding, stored, age[:, index], pointers[:, index])
        torch.testing.assert_close(got[index : index + 1], want, rtol=0, atol=1e-4)


def _conditioned(
    model: EdgeTamVideoModel, embedding: Tensor, memory: Tensor, age: Tensor, pointers: Tensor
) -> Tensor:
    """The same for one object by transformers: memory [M,512,64], age [M], pointers [P,C]."""
    _, placed = model.spatial_perceiver._forward_2d(torch.zeros(1, 64, SIDE, SIDE))
    position = torch.cat([torch.zeros(256, 64), placed[0]])
    temporal = model.memory_temporal_positional_encoding[(age.long() - 1)][:, 0]
    tokens = torch.cat([memory.flatten(0, 1), pointers.reshape(-1, 64)])
    where = (position + temporal).flatten(0, 1)
    where = torch.cat([where, torch.zeros(len(tokens) - len(where), 64)])
    neck = model.vision_encoder.neck.position_encoding
    features = embedding.flatten(2).permute(2, 0, 1)
    result = model.memory_attention(
        current_vision_features=features,
        memory=tokens[:, None],
        current_vision_position_embeddings=neck(embedding.shape, embedding.device, embedding.dtype)
        .flatten(2)
        .permute(2, 0, 1),
        memory_posision_embeddings=where[:, None],
        num_object_pointer_tokens=len(pointers) * 2,
        num_spatial_memory_tokens=len(memory),
    )
    return result.reshape(SIDE, SIDE, -1).permute(2, 0, 1)[None]


def test_a_memory_is_a_list_of_latents(model: EdgeTamVideoModel) -> None:
    assert geometry_of(model.config).memory_shape == (512, 64)


@pytest.mark.parametrize("size", [128, 320, 1000, 2304])
def test_sizes_that_the_windows_do_not_tile_are_refused_with_the_list(size: int) -> None:
    with pytest.raises(ExportError, match=rf"size {size}.* multiple of 256: 256, 512, .*2048"):
        at_image_size(small_edgetam_config(), size)
