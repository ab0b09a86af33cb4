"""Training: the rollout equals the tracker, losses match the paper, runs can be resumed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sam2_edge import Prompt, VideoTracker
from sam2_edge.bundle import load_bundle
from sam2_edge.errors import CheckpointError
from sam2_edge.evaluation.pytorch_loop import ReferencePrompt, ReferenceTracker
from sam2_edge.models.random_init import random_model
from tests.helpers.clips import moving_shapes
from tools.nano.architecture import nano_config
from tools.nano.data import IMAGE_KINDS, Batch, Batches, PromptKind, draw_prompt
from tools.nano.losses import Decoding, dice_loss, focal_loss, iou_of, loss_of
from tools.nano.publish import publish
from tools.nano.recipe import RECIPE, Phase
from tools.nano.rollout import Rollout, correcting_click, targets
from tools.nano.trainer import CHECKPOINT, LOG, Settings, train

TINY = Phase("tiny", 3, 64, 2, 2, 2, rate=1e-3, corrected=0.5)
PRESENT_SEED = 4
"""Random weights under which the object score is positive, so that masks are compared."""


def _batch(
    kind: PromptKind, *, frames: int = 20, size: int = 128, corrections: tuple[int, ...] = ()
) -> Batch:
    clip = moving_shapes(frames, (size, size))
    coords, labels = torch.tensor([[[34.0, 38.0]], [[92.0, 75.0]]]), torch.ones(2, 1).int()
    if kind == "box":
        coords = torch.tensor([[[16.0, 20.0], [52.0, 58.0]], [[70.0, 70.0], [120.0, 120.0]]])
        labels = torch.tensor([[2, 3], [2, 3]])
    return Batch(
        frames=torch.from_numpy(clip.frames[None, ..., ::-1].copy()),
        ids=torch.from_numpy(clip.masks[None]),
        kind=kind,
        coords=coords,
        labels=labels,
        corrections=corrections,
        objects=2,
    )


@pytest.mark.parametrize("kind", ["click", "box", "mask"])
def test_the_rollout_equals_the_pytorch_tracker(kind: PromptKind) -> None:
    model = random_model(nano_config(128), PRESENT_SEED)
    batch = _batch(kind)
    prompts = {
        row + 1: ReferencePrompt(mask=(batch.ids[0, 0] == row + 1).float())
        if kind == "mask"
        else ReferencePrompt(batch.coords[row], batch.labels[row])
        for row in range(2)
    }
    tracker = ReferenceTracker(model, memory_rounding="none")
    with torch.no_grad():
        decodings = Rollout(model, half=False).run(batch)
        wanted = [
            tracker.track(frame, prompts if t == 0 else {})
            for t, frame in enumerate(batch.frames[0])
        ]
    for (decoding,), results in list(zip(decodings, wanted, strict=True))[1:]:
        for row, chosen in enumerate(decoding.iou[:, 1:].argmax(dim=1) + 1):
            want = results[row + 1]
            assert want.object_score > 0
            assert decoding.object_score[row].item() == pytest.approx(want.object_score, abs=1e-4)
            got = decoding.masks[row, chosen]
            torch.testing.assert_close(got, want.logits, rtol=0, atol=1e-3)


def test_the_rollout_in_bfloat16_agrees_within_its_precision() -> None:
    model = random_model(nano_config(64), PRESENT_SEED)
    batch = _batch("mask", frames=3, size=64)
    with torch.no_grad():
        full, half = (
            [loss_of(d)["total"].item() for (d,) in Rollout(model, half=half).run(batch)]
            for half in (False, True)
        )
    assert full != half
    np.testing.assert_allclose(half, full, rtol=0.03)


def test_every_weight_that_a_tracker_uses_is_trained() -> None:
    model = random_model(nano_config(64), PRESENT_SEED).train()
    rollout = Rollout(model, half=False)
    for kind in IMAGE_KINDS:
        batch = _batch(kind, frames=3, size=64, corrections=() if kind == "mask" else (0, 2))
        decodings = itertools.chain.from_iterable(rollout.run(batch))
        torch.stack([loss_of(d)["total"] for d in decodings]).sum().backward()
    untrained = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert untrained == {
        "no_memory_positional_encoding",
        "occlusion_spatial_embedding_parameter",
    } | {
        "no_object_pointer"  # these two only where an object is absent
    }


def test_focal_and_dice_loss_match_a_hand_calculation() -> None:
    logits, target = torch.tensor([[[[2.0, -1.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    p, q = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))
    focal = (0.25 * (1 - p) ** 2 * -math.log(p) + 0.75 * q**2 * -math.log(1 - q)) / 2
    dice = 1 - (2 * p + 1) / (p + q + 1 + 1)
    assert focal_loss(logits, target).item() == pytest.approx(focal, abs=1e-6)
    assert dice_loss(logits, target).item() == pytest.approx(dice, abs=1e-6)


def test_only_the_best_of_several_masks_is_trained_and_every_iou_is() -> None:
    target = torch.zeros(1, 8, 8)
    target[:, :4] = 1
    masks = torch.zeros(1, 4, 8, 8)
    masks[:, 2] = torch.where(target > 0, 3.0, -3.0)
    masks.requires_grad_()
    iou = torch.full((1, 4), 0.25, requires_grad=True)
    loss_of(Decoding(masks, iou, torch.zeros(1), target, multimask=True))["total"].backward()
    trained = masks.grad.flatten(2).abs().amax(dim=2)[0] > 0
    assert trained.tolist() == [False, False, True, False]
    assert (iou.grad[0] != 0).tolist() == [False, True, True, True]


def test_an_absent_object_trains_only_the_object_score() -> None:
    masks = torch.randn(1, 4, 8, 8)
    parts = loss_of(
        Decoding(masks, torch.rand(1, 4), torch.tensor([2.0]), torch.zeros(1, 8, 8), True)
    )
    assert parts["total"].item() == pytest.approx(math.log(1 + math.exp(2)), abs=1e-5)


def test_a_correcting_click_falls_into_the_error() -> None:
    target = torch.zeros(3, 16, 16)
    target[:, 4:8, 4:8] = 1
    logits = torch.full((3, 1, 8, 8), -1.0)
    logits[1, :, 2:4, 2:4] = 1  # exact: any pixel of the object
    logits[2, :, 1:4, 2:4] = 1  # one row too many: a background click
    for _ in range(20):
        coords, labels = correcting_click(logits, target)
        cells = (coords[:, 0] / 4).long()
        assert labels[:, 0].tolist() == [1, 1, 0]
        assert ((cells[:2] >= 2) & (cells[:2] < 4)).all()
        assert cells[2, 1] == 1


def test_a_batch_depends_only_on_its_step() -> None:
    first, repeated, other = Batches(TINY, 3)[5], Batches(TINY, 3)[5], Batches(TINY, 3)[6]
    assert torch.equal(first.frames, repeated.frames)
    assert torch.equal(first.coords, repeated.coords)
    assert first.corrections == repeated.corrections
    assert not torch.equal(first.frames, other.frames)


def test_clips_that_lose_an_object_can_be_requested() -> None:
    plain = dataclasses.replace(TINY, frames=8, size=32, span=32)
    shares = []
    for phase in (plain, dataclasses.replace(plain, lost=1.0)):
        ids = torch.cat([Batches(phase, 1)[step].ids for step in range(12)])
        seen = torch.stack([(ids == i).flatten(2).any(dim=2).all(dim=1) for i in (1, 2)])
        shares.append(1 - seen.all(dim=0).float().mean().item())
    assert shares[1] > shares[0] + 0.2


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_prompts_are_on_the_object(kind: PromptKind) -> None:
    mask = np.zeros((64, 64), np.bool_)
    mask[20:30, 12:40] = True
    coords, labels = draw_prompt(np.random.default_rng(1), kind, mask)
    if kind == "box":
        np.testing.assert_allclose(coords, [[12, 20], [40, 30]], atol=2.8)
    elif kind == "mask":
        assert labels.tolist() == [-1]
    else:
        assert all(mask[int(y), int(x)] for x, y in coords)


def test_targets_are_the_covered_shares_of_cells() -> None:
    batch = _batch("click", frames=1)
    ids = batch.ids[0, 0].numpy()
    first = targets(batch)[0, 0].numpy()
    assert first.sum() * 4 == pytest.approx((ids == 1).sum())
    assert set(np.unique(first)) <= {0, 0.25, 0.5, 0.75, 1}


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    recipe = (TINY, dataclasses.replace(TINY, name="next", size=96, frames=1))
    whole = Settings(tmp_path / "whole", workers=0, half=False, recipe=recipe)
    state = train(whole)
    broken = dataclasses.replace(whole, folder=tmp_path / "broken", hours=1e-9)
    runs = 0
    while True:
        runs += 1
        piece = train(broken)  # one step, then the time is over
        if piece.phase == len(recipe):
            break
    assert runs == 5  # the second phase starts in the third run
    for name, value in state.average.items():
        torch.testing.assert_close(piece.average[name], value, rtol=0, atol=1e-6)


def test_a_damaged_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="delete it to start again"):
        train(Settings(tmp_path, workers=0, recipe=(TINY,)))


def test_training_overfits_one_image(tmp_path: Path) -> None:
    recipe = (Phase("one", 60, 64, 1, 1, 1, rate=2e-3, pool=1),)
    train(Settings(tmp_path, workers=0, half=False, recipe=recipe))
    entries = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    first, last = entries[0]["loss"]["total"], entries[-1]["loss"]["total"]
    assert last < 0.6 * first


def test_the_recipe_reaches_a_full_memory() -> None:
    longest = max(phase.frames for phase in RECIPE)
    assert longest > 16


def test_a_published_bundle_holds_the_averaged_weights(tmp_path: Path) -> None:
    run, target = tmp_path / "run", tmp_path / "bundle"
    state = train(Settings(run, workers=0, half=False, recipe=(TINY,)))
    bundle = publish(run, target)
    assert (target / "model.safetensors").stat().st_size <= 8_000_000
    assert load_bundle(target).manifest.model.name == "sam2-edge-nano"
    model = random_model(nano_config(), 0)
    half = {n: v.half().float() for n, v in state.average.items()}
    model.load_state_dict(half, strict=False)
    frequencies = "prompt_encoder.shared_embedding.positional_embedding"
    for name in (frequencies, "shared_image_embedding.positional_embedding"):
        model.get_buffer(name).copy_(state.model.get_buffer(frequencies).half().float())
    clip = moving_shapes(2, (256, 256))
    with torch.no_grad():
        reference = ReferenceTracker(model, memory_rounding="none")
        prompt = ReferencePrompt(torch.tensor([[80.0, 80.0]]), torch.tensor([1]))
        want = reference.track(torch.from_numpy(clip.frames[0, ..., ::-1].copy()), {1: prompt})[1]
    got = VideoTracker(bundle, threads=1).track(clip.frames[0], [Prompt(1, points=[(80, 80)])])[1]
    assert got.object_score == pytest.approx(want.object_score, abs=1e-3)
    np.testing.assert_allclose(got.logits, want.logits.numpy(), atol=1e-3)


def test_the_graphs_of_a_published_folder_are_written_anew(tmp_path: Path) -> None:
    published, target = load_bundle("nano").path, tmp_path / "nano"
    bundle = publish(published, target)
    for name in ("model.safetensors", "config.json"):
        assert (target / name).read_bytes() == (published / name).read_bytes()
    for graph, entry in bundle.manifest.graphs.items():
        assert [file.file for file in entry.data] == ["model.safetensors"]
        assert bundle.graph_path(graph).stat().st_size < 700_000
    frame = moving_shapes(1, (256, 256)).frames[0]
    masks = [
        VideoTracker(b, threads=1).track(frame, [Prompt(1, points=[(80, 80)])])[1].logits
        for b in (load_bundle(published), bundle)
    ]
    np.testing.assert_allclose(masks[0], masks[1], atol=1e-3)


def test_a_folder_without_weights_cannot_be_published(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"neither checkpoint\.pt nor model\.safetensors"):
        publish(tmp_path / "empty", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_iou_of_masks() -> None:
    logits = torch.tensor([[1.0, 1.0, -1.0, -1.0]]).reshape(1, 2, 2)
    target = torch.tensor([[1.0, 0.0, 1.0, 0.0]]).reshape(1, 2, 2)
    assert iou_of(logits, target).item() == pytest.approx(1 / 3)
