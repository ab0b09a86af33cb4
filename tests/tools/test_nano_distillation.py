"""edgetam-nano: what it takes from nano, and that each phase of distillation brings it nearer."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import EdgeTamVideoModel, Sam2VideoModel

from sam2_edge import Prompt, VideoTracker
from sam2_edge.evaluation.pytorch_loop import ReferencePrompt, ReferenceTracker
from sam2_edge.models.checkpoints import load_folder, load_model
from sam2_edge.models.edgetam.features import RepVitFeatures
from tests.helpers.clips import moving_shapes
from tools.nano.data import Batches
from tools.nano.distill import FEATURES, MEMORY, Distillation, from_nano
from tools.nano.edgetam import TrainableFeatures
from tools.nano.publish import publish
from tools.nano.recipe import Phase
from tools.nano.trainer import Settings, train

BYTES = 5_000_000
"""Limit of the weights in half precision."""


@pytest.fixture(scope="module")
def nano() -> Sam2VideoModel:
    return load_model("nano").model.eval()


@pytest.fixture(scope="module")
def student(nano: Sam2VideoModel) -> EdgeTamVideoModel:
    return from_nano(nano, 1)


def test_all_but_the_backbone_and_the_perceiver_comes_from_nano(
    nano: Sam2VideoModel, student: EdgeTamVideoModel
) -> None:
    own = student.state_dict()
    shared = {n: v for n, v in nano.state_dict().items() if not n.startswith("vision_encoder")}
    for name, value in shared.items():
        assert ".linear" in name or torch.equal(own[name], value), name
    parts = {name.partition(".")[0] for name in own} - {n.partition(".")[0] for n in shared}
    assert parts == {"vision_encoder", "spatial_perceiver"}


def test_memory_attention_keeps_the_strongest_hidden_units_of_nano(
    nano: Sam2VideoModel, student: EdgeTamVideoModel
) -> None:
    layers = zip(nano.memory_attention.layers, student.memory_attention.layers, strict=True)
    for given, own in layers:
        up, down = given.linear1, given.linear2
        strength = (up.weight.norm(dim=1) * down.weight.norm(dim=0)).tolist()
        units = [tuple(row) for row in torch.cat([up.weight, down.weight.T], dim=1).tolist()]
        ranked = [unit for _, unit in sorted(zip(strength, units, strict=True), reverse=True)]
        kept = torch.cat([own.mlp.up_proj.weight, own.mlp.down_proj.weight.T], dim=1).tolist()
        assert {tuple(row) for row in kept} == set(ranked[: len(kept)])


def test_the_weights_fit_the_limit(student: EdgeTamVideoModel) -> None:
    assert sum(2 * value.numel() for value in student.state_dict().values()) < BYTES


def test_trained_features_are_those_of_the_graph(student: EdgeTamVideoModel) -> None:
    student = copy.deepcopy(student).train()
    features, pixels = TrainableFeatures(student), torch.randn(2, 3, 256, 256)
    features(pixels)  # moves the statistics away from 0 and 1
    student.eval()
    with torch.no_grad():
        graph = RepVitFeatures(student, "cpu")
        for found, wanted in zip(features(pixels), graph(pixels), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("phase", "parts"),
    [
        (Phase(FEATURES.name, 6, 256, 2, 1, 1, rate=0), {"vision_encoder", "mask_decoder"}),
        (
            Phase(MEMORY.name, 6, 256, 1, 3, 1, rate=0),
            {
                "spatial_perceiver",
                "memory_attention",
                "memory_temporal_positional_encoding",
                "temporal_positional_encoding_projection_layer",
            },
        ),
    ],
    ids=["features", "memory"],
)
def test_a_phase_of_distillation_brings_its_parts_nearer(
    nano: Sam2VideoModel, student: EdgeTamVideoModel, phase: Phase, parts: set[str]
) -> None:
    student = copy.deepcopy(student).train()
    objective, batch = Distillation(nano)(student, phase, half=False), Batches(phase, 1)[0]
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    totals = []
    for _ in range(phase.steps):
        total = objective(batch)["total"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.8 * totals[0]
    trained = {n.partition(".")[0] for n, p in student.named_parameters() if p.grad is not None}
    assert trained == parts


def test_batch_statistics_are_part_of_a_run(
    tmp_path: Path, nano: Sam2VideoModel, student: EdgeTamVideoModel
) -> None:
    phases = (Phase(FEATURES.name, 1, 256, 2, 1, 1, rate=1e-3), Phase("masks", 1, 256, 1, 1, 1, 0))
    settings = Settings(
        tmp_path,
        workers=0,
        half=False,
        recipe=phases[:1],
        start=lambda _seed: copy.deepcopy(student),
        objective=Distillation(nano),
    )
    state = train(settings)
    name = "vision_encoder.backbone.timm_model.stem.conv1.bn.running_mean"
    mean, average = state.model.get_buffer(name).clone(), state.average[name].clone()
    assert not torch.equal(mean, student.get_buffer(name))
    assert not torch.equal(average, student.get_buffer(name))
    # Clips show few scenes, so that statistics of their batches would be poor.
    state = train(dataclasses.replace(settings, recipe=phases))
    assert torch.equal(state.model.get_buffer(name), mean)


def test_a_published_run_is_a_bundle_of_its_family(
    tmp_path: Path, student: EdgeTamVideoModel
) -> None:
    run, target = tmp_path / "run", tmp_path / "bundle"
    phase = Phase("masks", 1, 256, 1, 1, 1, rate=0)
    train(
        Settings(
            run, workers=0, half=False, recipe=(phase,), start=lambda _: copy.deepcopy(student)
        )
    )
    bundle = publish(run, target)
    assert bundle.manifest.model.name == "edgetam-nano"
    assert bundle.manifest.model.family == "edgetam"
    assert (target / "model.safetensors").stat().st_size < BYTES
    frame = moving_shapes(1, (256, 256)).frames[0]
    result = VideoTracker(bundle, threads=1).track(frame, [Prompt(1, points=[(80, 80)])])[1]
    model = load_folder(target, image_size=256, name="again", source="test").model
    with torch.no_grad():
        reference = ReferenceTracker(model, memory_rounding="none")
        prompt = ReferencePrompt(torch.tensor([[80.0, 80.0]]), torch.tensor([1]))
        want = reference.track(torch.from_numpy(frame[..., ::-1].copy()), {1: prompt})[1]
    np.testing.assert_allclose(result.logits, want.logits.numpy(), atol=1e-3)
