"""The bundled models: small, complete, usable without PyTorch, as accurate as their cards state."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedModel, Sam2VideoModel

from sam2_edge import Prompt, VideoTracker
from sam2_edge.bundle import load_bundle
from sam2_edge.bundle.contract import Graph, graph_specs
from sam2_edge.bundle.names import BUNDLED
from sam2_edge.errors import BundleError, ExportError
from sam2_edge.evaluation.pytorch import PyTorchTracker
from sam2_edge.evaluation.synthetic import heldout_clips, scores, summary
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import ExportOptions
from sam2_edge.export.validate import check_numbers, example_feeds
from sam2_edge.models.checkpoints import load_model
from sam2_edge.models.graphs import graph_modules
from sam2_edge.synthetic import SyntheticClip
from tests.helpers.models import loaded
from tools.nano.packing import pack_bundle, stored_tensors

NANO = BUNDLED["nano"]
CLIPS = 20

MAX_WEIGHTS = {"nano": 8_000_000, "edgetam-nano": 5_000_000}
"""Bytes; the graphs come on top."""


@pytest.fixture(scope="module", params=list(BUNDLED))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str) -> PreTrainedModel:
    return load_model(name).model


@pytest.fixture(scope="module")
def clips() -> list[SyntheticClip]:
    return list(heldout_clips(CLIPS))


def test_it_is_small_and_described(name: str) -> None:
    folder = BUNDLED[name]
    assert (folder / "model.safetensors").stat().st_size <= MAX_WEIGHTS[name]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MAX_WEIGHTS[name] + 2_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    for word in ("J&F", "seed", "hour", "Apache-2.0", "Limits"):
        assert word in card


def test_its_graphs_match_its_weights(name: str, model: PreTrainedModel) -> None:
    bundle = load_bundle(name)
    geometry = bundle.manifest.geometry
    for graph, module in graph_modules(model, memory_rounding="none").items():
        spec = graph_specs(geometry)[graph]
        worst = check_numbers(
            bundle.graph_path(graph), module, spec, example_feeds(spec, geometry), rounded=False
        )
        assert max(worst.values()) < 1e-3


def test_it_tracks_offline_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, socket\n"
        "sys.modules.update(dict.fromkeys(('torch', 'transformers', 'onnx', 'safetensors')))\n"
        "def refused(*_): raise OSError('no network')\n"
        "socket.socket.connect = refused\n"
        "from sam2_edge.cli.main import cli\n"
        "cli(['synth', 'data', '--frames', '6'], standalone_mode=False)\n"
        "cli(['track', 'data/JPEGImages/00000', '--bundle', 'nano', '--prompts',\n"
        "     'data/prompts/00000.json', '--masks', 'masks'], standalone_mode=False)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "masks").glob("*.png"))) == 6


@pytest.mark.slow
def test_it_can_be_exported_at_its_own_size_and_at_another(tmp_path: Path) -> None:
    assert load_model("nano").model.config.image_size == 256
    bundle = export_bundle(load_model("nano", image_size=320), tmp_path / "nano")
    assert bundle.manifest.image_size == 320
    assert bundle.manifest.model.name == "sam2-edge-nano"


@pytest.mark.slow
def test_masks_through_onnxruntime_are_as_good_as_through_pytorch(
    name: str, model: PreTrainedModel, clips: list[SyntheticClip]
) -> None:
    ours = list(scores(clips, "click", VideoTracker(name, threads=1)))
    theirs = list(scores(clips, "click", PyTorchTracker(model, load_bundle(name).manifest)))
    difference = summary(ours)["j_and_f"] - summary(theirs)["j_and_f"]
    assert abs(difference) <= 0.001
    assert summary(ours)["j_and_f"] > MIN_J_AND_F
    assert summary(ours)["presence"] > MIN_PRESENCE


MIN_J_AND_F, MIN_PRESENCE = 0.65, 0.88


def test_packing_changes_no_value_and_refuses_damaged_weights(
    small_model: Sam2VideoModel, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    model = small_model
    half = {n: v.half() for n, v in model.state_dict().items()}
    exact = type(model)(model.config).eval()
    exact.load_state_dict({n: v.float() for n, v in half.items()})
    plain = export_bundle(loaded(exact), tmp_path / "plain", ExportOptions(memory_rounding="none"))
    packed = export_bundle(
        loaded(exact), tmp_path / "packed", ExportOptions(memory_rounding="none")
    )
    save_file({n: v.clone() for n, v in half.items()}, packed.path / "weights.safetensors")
    pack_bundle(packed.path, packed.manifest, "weights.safetensors")
    sizes = [sum(f.stat().st_size for f in b.path.iterdir()) for b in (plain, packed)]
    assert sizes[1] < 0.65 * sizes[0]
    frame = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    results = []
    for bundle in (plain, packed):
        tracker = VideoTracker(bundle.path, threads=1)
        tracker.track(frame, [Prompt(1, points=[(30, 30)])])
        results.append(tracker.track(frame)[1].logits)
    np.testing.assert_array_equal(results[0], results[1])
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x08\0\0\0\0\0\0\0no json!")
    with pytest.raises(ExportError, match="not a safetensors file"):
        list(stored_tensors(damaged))


def test_changed_weights_are_detected(tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(NANO, copy)
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-2, 2)
        file.write(b"\xff\xff")
    with pytest.raises(BundleError, match="model.safetensors has sha256"):
        load_bundle(copy)
    assert set(load_bundle(NANO).manifest.graphs) == set(Graph)
