"""Every command with a bundle of each family, exported in INT8 from a model folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from sam2_edge import load_bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.models.random_init import random_model
from tests.helpers import sam3
from tests.helpers.cli import call, lines_of
from tests.helpers.datasets import late_clip, result_rows, write_layout
from tests.helpers.models import frames_of_a_clip

CLICK = ("--point", "64,64")
ONE = ("--threads", 1)


@pytest.fixture(scope="module", params=["edgetam", "sam3"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model."""
    made: PreTrainedModel
    if request.param == "edgetam":
        made = request.getfixturevalue("small_edgetam")
    else:
        made = random_model(sam3.small_config(), sam3.SEED)
    folder: Path = tmp_path_factory.mktemp("model") / request.param
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return frames_of_a_clip(tmp_path_factory.mktemp("clip") / "frames", frames=16)


@pytest.fixture(scope="module")
def bundle(model: Path, frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target: Path = tmp_path_factory.mktemp("bundle") / "int8"
    calibrated = ("--precision", "int8", "--calibrate", frames)
    assert call("export", model, "--output", target, *calibrated) == 0
    return target


def test_the_image_encoder_is_in_int8(bundle: Path, model: Path) -> None:
    manifest = load_bundle(bundle).manifest
    assert manifest.model.family == model.name
    assert manifest.graphs[Graph.IMAGE_ENCODER].precision == "int8"


def test_verify_runs_every_graph_beside_pytorch(bundle: Path, frames: Path, tmp_path: Path) -> None:
    found = tmp_path / "verify.json"
    tolerances = [f"--tolerance={name}=1" for name in ("graph", "j_and_f", "memory", "pointer")]
    outputs = ("--json", found)
    call("verify", bundle, "--source", frames, *CLICK, "--frames", "0:4", *tolerances, *outputs)
    report = json.loads(found.read_text())
    compared = {each["graph"] for each in report["graphs"]}
    assert compared >= {"image_encoder", "memory_attention", "mask_decoder", "memory_encoder"}


@pytest.mark.parametrize("policy", ["original", "motion", "distractor"])
def test_track_writes_every_frame(policy: str, bundle: Path, frames: Path, tmp_path: Path) -> None:
    lines = tmp_path / "masks.jsonl"
    policies = ("--memory-policy", policy)
    assert call("track", frames, "--bundle", bundle, *CLICK, "--jsonl", lines, *policies, *ONE) == 0
    assert len(lines_of(lines)) == 16


def test_bench_times_it_beside_pytorch(bundle: Path, tmp_path: Path) -> None:
    found = tmp_path / "bench.json"
    options = ("--frames", 34, "--json", found)
    assert call("bench", bundle, "--against", "pytorch", *options, *ONE) == 0
    assert len(json.loads(found.read_text())["runs"][0]["targets"]) == 2


def test_eval_scores_an_object(bundle: Path, tmp_path: Path) -> None:
    data = write_layout(tmp_path / "davis", "davis", {"cup": late_clip(1, 4)})
    assert call("eval", data, bundle, "--output", tmp_path / "scores", *ONE) == 0
    assert set(result_rows(tmp_path / "scores")) == {("cup", "1")}


def test_segment_and_run_write_masks(bundle: Path, frames: Path, tmp_path: Path) -> None:
    masks, lines = tmp_path / "masks", tmp_path / "lines"
    picture = next(frames.iterdir())
    assert call("segment", picture, "--bundle", bundle, *CLICK, "--masks", masks, *ONE) == 0
    assert len(list(masks.iterdir())) == 1
    assert call("run", frames, "--bundle", bundle, *CLICK, "--jsonl", lines, *ONE) == 0
    assert sum(len(lines_of(file)) for file in lines.iterdir()) > 0
