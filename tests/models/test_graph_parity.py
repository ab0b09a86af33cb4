"""Each exported graph alone, run by ONNX Runtime, against transformers' own methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import get_1d_sine_pe

from sam2_edge import Bundle
from sam2_edge.bundle.contract import PARITY_TOLERANCE, Graph, GraphTarget, graph_specs
from sam2_edge.models.sam2.family import IMAGE_MEAN, IMAGE_STD

TOLERANCE = PARITY_TOLERANCE["fp32"]
Arrays = dict[str, NDArray[Any]]
Run = Callable[[Graph, Arrays], Arrays]


@pytest.fixture(scope="module", params=get_args(GraphTarget))
def run(request: pytest.FixtureRequest, full_bundle: Bundle, gpu_bundle: Bundle) -> Run:
    """Run a graph of a bundle that stores memory in full, in each form."""
    bundle = gpu_bundle if request.param == "gpu" else full_bundle
    assert bundle.manifest.target == request.param

    def run_graph(graph: Graph, inputs: Arrays) -> Arrays:
        session = ort.InferenceSession(bundle.graph_path(graph), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, inputs), strict=True))

    return run_graph


@pytest.fixture(scope="module")
def features(run: Run) -> Arrays:
    image = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), dtype=np.uint8)
    return {"image": image, **run(Graph.IMAGE_ENCODER, {"image": image})}


def close(got: NDArray[Any], want: torch.Tensor) -> None:
    """Equal within the tolerance, and not constant."""
    assert got.std() > 0.01
    np.testing.assert_allclose(got, want.detach().numpy(), rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_image_encoder(small_model: Sam2VideoModel, features: Arrays) -> None:
    pixels = torch.from_numpy(features["image"]).float() / 255
    pixels = ((pixels - torch.tensor(IMAGE_MEAN)) / torch.tensor(IMAGE_STD)).permute(0, 3, 1, 2)

    expected = small_model.get_image_features(pixels, return_dict=True).fpn_hidden_states
    unconditioned = small_model.get_image_embeddings(pixels)[-1]

    for name, want in zip(("high_res_0", "high_res_1", "embedding"), expected, strict=True):
        got = features[name]
        close(got, want.permute(1, 2, 0).reshape(got.shape))
    close(features["unconditioned"], unconditioned)


def _memory_inputs(memories: int, pointers: int, objects: int) -> Arrays:
    generator = np.random.default_rng(memories)
    normal = generator.standard_normal
    ages = generator.permuted(np.tile(np.arange(memories) % 7, (objects, 1)), axis=1).T
    # All memories that are stored, in any order, and one of nobody.
    order = generator.permutation(memories * objects + 1)
    return {
        "memory": normal((len(order), 64, 8, 8)).astype(np.float32),
        "memory_rows": order[1:].reshape(memories, objects).astype(np.int32),
        "memory_age": ages.astype(np.int32),
        "pointers": normal((pointers, objects, 128)).astype(np.float32),
        "pointer_age": generator.uniform(0, 2, (pointers, objects)).astype(np.float32),
    }


def _reference_attention(
    model: Sam2VideoModel, embedding: NDArray[Any], inputs: Arrays, row: int
) -> torch.Tensor:
    """transformers' memory attention for one object of a batch; C = 128, m = 64, h = w = 8."""
    memory = torch.from_numpy(inputs["memory"][inputs["memory_rows"][:, row]])
    grid = model.memory_encoder.position_encoding((1, 64, 8, 8), "cpu", torch.float32)
    spatial = grid.flatten(2).permute(2, 0, 1)
    temporal = model.memory_temporal_positional_encoding
    tokens = [m.flatten(1).T[:, None] for m in memory]
    positions = [spatial + temporal[int(age) - 1] for age in inputs["memory_age"][:, row]]
    pointers = torch.from_numpy(inputs["pointers"][:, row])
    tokens.append(pointers.reshape(-1, 64)[:, None])
    age = get_1d_sine_pe(torch.from_numpy(inputs["pointer_age"][:, row]), dim=128)
    encoded = model.temporal_positional_encoding_projection_layer(age)
    positions.append(encoded.repeat_interleave(2, dim=0)[:, None])
    current = torch.from_numpy(embedding)
    position = model.vision_encoder.neck.position_encoding(current.shape, "cpu", torch.float32)
    hidden = model.memory_attention(
        current_vision_features=current.flatten(2).permute(2, 0, 1),
        current_vision_position_embeddings=position.flatten(2).permute(2, 0, 1),
        memory=torch.cat(tokens),
        memory_posision_embeddings=torch.cat(positions),
        num_object_pointer_tokens=2 * len(pointers),
    )
    return hidden.squeeze(1).transpose(1, 2).reshape(128, 8, 8)


@pytest.mark.parametrize(
    ("memories", "pointers", "objects"), [(1, 1, 1), (2, 5, 3), (7, 16, 1), (10, 19, 4)]
)
@torch.no_grad()
def test_memory_attention(
    small_model: Sam2VideoModel,
    run: Run,
    features: Arrays,
    memories: int,
    pointers: int,
    objects: int,
) -> None:
    inputs = _memory_inputs(memories, pointers, objects)
    embedding = features["embedding"]

    got = run(Graph.MEMORY_ATTENTION, {"embedding": embedding, **inputs})["conditioned"]

    for row in range(objects):
        close(got[row], _reference_attention(small_model, embedding, inputs, row))


def _decode(run: Run, features: Arrays, prompts: Arrays) -> Arrays:
    count = len(prompts["point_labels"])
    inputs = {
        "conditioned": np.repeat(features["unconditioned"], count, axis=0),
        "high_res_0": features["high_res_0"],
        "high_res_1": features["high_res_1"],
        "mask_input": np.zeros((count, 1, 32, 32), np.float32),
        "has_mask": np.zeros(count, np.int32),
        "multimask": np.zeros(count, np.int32),
        **prompts,
    }
    return run(Graph.MASK_DECODER, inputs)


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize(
    ("coords", "labels"),
    [
        ([[30.0, 40.0]], [1]),
        ([[30.0, 40.0], [100.0, 5.0], [64.0, 64.0]], [1, 0, 1]),
        ([[20.0, 20.0], [90.0, 100.0], [50.0, 50.0]], [2, 3, 1]),
    ],
    ids=["click", "clicks", "box and click"],
)
@torch.no_grad()
def test_mask_decoder(
    small_model: Sam2VideoModel,
    run: Run,
    features: Arrays,
    coords: list[list[float]],
    labels: list[int],
    multimask: bool,
) -> None:
    prompts = {
        "point_coords": np.array([coords], np.float32),
        "point_labels": np.array([labels], np.int32),
        "multimask": np.array([multimask], np.int32),
    }

    got = _decode(run, features, prompts)
    expected = small_model._single_frame_forward(
        input_points=torch.tensor([[coords]]),
        input_labels=torch.tensor([[labels]]),
        image_embeddings=[
            torch.from_numpy(features[n]) for n in ("high_res_0", "high_res_1", "unconditioned")
        ],
        multimask_output=multimask,
    )

    close(got["best_mask"], expected.pred_masks)
    close(got["pointer"], expected.object_pointer[:, 0])
    assert got["best_iou"][0] == pytest.approx(float(expected.iou_scores.max()), abs=TOLERANCE)
    assert got["object_score"][0] == pytest.approx(
        float(expected.object_score_logits), abs=TOLERANCE
    )
    if multimask:
        np.testing.assert_allclose(got["iou"][:, 1:], expected.iou_scores[0], atol=TOLERANCE)
        assert got["best_index"][0] == 1 + int(expected.iou_scores.argmax())


@torch.no_grad()
def test_mask_decoder_uses_a_mask_only_where_has_mask_is_set(
    small_model: Sam2VideoModel, run: Run, features: Arrays
) -> None:
    mask = 5 * np.random.default_rng(1).standard_normal((2, 1, 32, 32)).astype(np.float32)
    prompts = {
        "point_coords": np.full((2, 1, 2), 30, np.float32),
        "point_labels": np.ones((2, 1), np.int32),
        "mask_input": mask,
        "has_mask": np.array([0, 1], np.int32),
    }

    got = _decode(run, features, prompts)["best_mask"]
    embeddings = [
        torch.from_numpy(features[n]) for n in ("high_res_0", "high_res_1", "unconditioned")
    ]
    for row, given in enumerate((None, torch.from_numpy(mask[1:]))):
        expected = small_model._single_frame_forward(
            input_points=torch.full((1, 1, 1, 2), 30.0),
            input_labels=torch.ones(1, 1, 1, dtype=torch.int32),
            input_masks=given,
            image_embeddings=embeddings,
            multimask_output=False,
        )
        close(got[row], expected.pred_masks[0])
    assert np.abs(got[0] - got[1]).max() > 0.1


@torch.no_grad()
def test_mask_prompt(small_model: Sam2VideoModel, run: Run) -> None:
    mask = (np.random.default_rng(2).random((2, 1, 128, 128)) < 0.3).astype(np.float32)

    got = run(Graph.MASK_PROMPT, {"mask": mask})

    tensor = torch.from_numpy(mask)
    close(got["mask_input"], small_model.mask_downsample(tensor))
    resized = F.interpolate(20 * tensor - 10, size=(32, 32), mode="bilinear", antialias=True)
    close(got["mask_logits"], resized)


@pytest.mark.parametrize("binarize", [False, True])
@pytest.mark.parametrize("score", [1.5, -1.5])
@torch.no_grad()
def test_memory_encoder(
    small_model: Sam2VideoModel,
    small_bundle: Bundle,
    features: Arrays,
    binarize: bool,
    score: float,
) -> None:
    logits = 3 * np.random.default_rng(3).standard_normal((2, 1, 32, 32)).astype(np.float32)
    session = ort.InferenceSession(small_bundle.graph_path(Graph.MEMORY_ENCODER))

    inputs = {
        "embedding": features["embedding"],
        "mask_logits": logits,
        "object_score": np.full(2, score, np.float32),
        "binarize": np.full(2, binarize, np.int32),
    }
    got = session.run(None, inputs)[0]

    embedding = torch.from_numpy(features["embedding"]).flatten(2).permute(2, 0, 1)
    high_res = F.interpolate(torch.from_numpy(logits), size=(128, 128), mode="bilinear")
    expected, _ = small_model._encode_new_memory(
        embedding.expand(-1, 2, -1), high_res, torch.full((2, 1, 1), score), binarize
    )
    want = expected.float().permute(1, 2, 0).reshape(got.shape).numpy()
    # Both round to bfloat16: a value near the middle of two steps may go either way.
    np.testing.assert_allclose(got, want, rtol=2**-7, atol=TOLERANCE)
    assert (got == want).mean() > 0.99


def test_graphs_declare_the_contract(full_bundle: Bundle) -> None:
    for graph, spec in graph_specs(full_bundle.manifest.geometry).items():
        session = ort.InferenceSession(full_bundle.graph_path(graph))
        found = [(i.name, tuple(i.shape)) for i in (*session.get_inputs(), *session.get_outputs())]
        assert found == [(s.name, s.axes) for s in (*spec.inputs, *spec.outputs)]
