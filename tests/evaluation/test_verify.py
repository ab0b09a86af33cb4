"""`sam2-edge verify`: what it finds, and that it finds what is wrong."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from transformers import Sam2VideoModel

from sam2_edge import Bundle, BundleError, Sam2EdgeError, SourceError
from sam2_edge.bundle import BUNDLED, load_bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.evaluation.charts import ceiling, line_chart
from sam2_edge.evaluation.differences import difference, rows_of_equal_choice
from sam2_edge.evaluation.verify.clips import SYNTHETIC_SEED, PromptedClip, prompted_clip
from sam2_edge.evaluation.verify.compare import Verification, frames_to_note, verify
from sam2_edge.evaluation.verify.references import Reference, open_reference
from sam2_edge.evaluation.verify.tolerances import GRAPH_LIMITS, LOOP_LIMITS, budget_for
from sam2_edge.export.int8_search import trial_bundle
from sam2_edge.runtime.backends import open_backend
from sam2_edge.runtime.sources import FrameRange
from sam2_edge.synthetic import clip
from tests.helpers.cli import run

FRAMES = 3


@pytest.fixture(scope="module")
def model_folder(small_model: Sam2VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model as a folder that can be named."""
    folder = tmp_path_factory.mktemp("model")
    small_model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def filmed(small_bundle: Bundle) -> PromptedClip:
    return prompted_clip(None, FrameRange(0, FRAMES), small_bundle.manifest.image_size)


@pytest.fixture(scope="module")
def pytorch(full_bundle: Bundle, model_folder: Path) -> Reference:
    return open_reference(full_bundle, str(model_folder), threads=1)


def spoilt(source: Bundle, graph: Graph, folder: Path) -> Bundle:
    """The bundle with the weights of one graph a little too large."""
    model = onnx.load(source.graph_path(graph))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim >= 2:
            larger = numpy_helper.from_array((values * np.float32(1.02)), tensor.name)
            tensor.CopyFrom(larger)
    return trial_bundle(source, folder, {graph: model})


def compare(
    bundle: Bundle, reference: Reference, filmed: PromptedClip, *swapped: Graph
) -> Verification:
    own = open_backend(bundle, "cpu", threads=1)
    return verify(bundle, own, reference, filmed, swapped=swapped)


def test_differences_by_hand() -> None:
    found = difference(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    assert found is not None
    assert (found.largest, found.mean) == (2.0, 1.0)
    assert found.cosine == pytest.approx(9 / math.sqrt(5 * 17))
    assert found.relative == pytest.approx(2 / math.sqrt(17))
    same = difference(np.zeros(3), np.zeros(3))
    assert same is not None
    assert (same.cosine, same.relative) == (1.0, 0.0)
    assert difference(np.zeros((0, 2)), np.zeros((0, 2))) is None
    with pytest.raises(ValueError, match="both must be the same"):
        difference(np.zeros(2), np.zeros(3))


def test_decoders_that_choose_alike_are_found_by_object() -> None:
    ours = {"best_index": np.array([1, 2, 0]), "object_score": np.array([3.0, 1.0, -1.0])}
    theirs = {"best_index": np.array([1, 1, 0]), "object_score": np.array([2.0, 1.0, 0.5])}
    assert list(rows_of_equal_choice(ours, theirs)) == [True, False, False]
    assert rows_of_equal_choice({}, {}) == slice(None)


def test_a_bundle_agrees_with_pytorch(
    full_bundle: Bundle, pytorch: Reference, filmed: PromptedClip
) -> None:
    found = compare(full_bundle, pytorch, filmed)

    assert {graph for graph, _ in found.graphs} == set(Graph)
    assert max(worst.relative for worst in found.graphs.values()) < 1e-4
    assert found.j_and_f > 0.999
    assert found.presence == 1.0
    assert found.first_parting is None
    for name in ("memory", "pointer"):
        drift = found.drift(name)
        assert drift is not None
        assert 0 < drift < 1e-3
    assert len(found.compared) == 2 * FRAMES
    assert found.problems(budget_for(full_bundle.manifest, {})) == []


@pytest.mark.parametrize("graph", list(Graph))
def test_a_spoilt_graph_is_found_and_swapping_it_mends_the_loop(
    full_bundle: Bundle, filmed: PromptedClip, tmp_path: Path, graph: Graph
) -> None:
    bad = spoilt(full_bundle, graph, tmp_path)
    reference = open_reference(bad, str(full_bundle.path), threads=1)

    found = compare(bad, reference, filmed)
    mended = compare(bad, reference, filmed, graph)

    faulty = {g for (g, _), worst in found.graphs.items() if worst.relative > 1e-6}
    assert faulty == {graph}
    assert any(graph.value in problem for problem in found.problems(budget_for(bad.manifest, {})))
    assert all(c.j == 1.0 and c.logits == 0.0 for c in mended.compared)
    assert graph not in {g for g, _ in mended.graphs}


def test_every_graph_has_its_own_budget_and_the_loop_that_of_the_least_exact(
    full_bundle: Bundle,
) -> None:
    manifest = full_bundle.manifest
    exact = budget_for(manifest, {})
    assert exact.j_and_f == LOOP_LIMITS["fp32"]["j_and_f"]
    assert set(exact.graph.values()) == {GRAPH_LIMITS["fp32"]}
    assert budget_for(manifest, {"j_and_f": 0.5}).j_and_f == 0.5
    assert set(budget_for(manifest, {"graph": 0.7}).graph.values()) == {0.7}
    graphs = dict(manifest.graphs)
    encoder, decoder = Graph.IMAGE_ENCODER, Graph.MASK_DECODER
    graphs[encoder] = graphs[encoder].model_copy(update={"precision": "int8"})
    graphs[decoder] = graphs[decoder].model_copy(update={"precision": "fp16"})
    coarse = manifest.model_copy(update={"graphs": graphs})
    for found in (budget_for(coarse, {}), budget_for(manifest, {}, coarse)):
        assert found.j_and_f == LOOP_LIMITS["int8"]["j_and_f"]
        assert found.graph[encoder] == GRAPH_LIMITS["int8"]
        assert found.graph[decoder] == GRAPH_LIMITS["fp16"]
        assert found.graph[Graph.MEMORY_ENCODER] == GRAPH_LIMITS["fp32"]
    for changed, message in (
        ({"iou": 1.0}, "no budget 'iou'"),
        ({"graph": -1.0}, "-1.0; give 0 or more"),
        ({"graph": math.inf}, "inf; give 0 or more"),
        ({"presence": 1.5}, "1.5; give 0 to 1"),
    ):
        with pytest.raises(Sam2EdgeError, match=message):
            budget_for(manifest, changed)


def test_values_that_are_not_finite_break_every_budget(
    full_bundle: Bundle, pytorch: Reference, filmed: PromptedClip
) -> None:
    found = compare(full_bundle, pytorch, filmed)
    key = next(iter(found.graphs))
    bad = difference(np.array([np.nan, 1.0]), np.array([1.0, 1.0]))
    assert bad is not None
    for worst in (found.graphs[key].worse(bad), bad.worse(found.graphs[key])):
        found.graphs[key] = worst
        budget = budget_for(full_bundle.manifest, {"graph": 100.0})
        assert len(found.problems(budget)) == 1


def test_the_clip_without_a_source_loses_an_object_and_finds_it_again() -> None:
    drawn = clip(SYNTHETIC_SEED, frames=32, size=128, split="heldout", photographs=False)
    assert drawn.present[0].all()
    assert drawn.present[-1].all()
    assert 4 <= (~drawn.present).sum() <= 16
    with pytest.raises(SourceError, match="out of sight"):
        prompted_clip(None, FrameRange(int((~drawn.present).any(axis=1).argmax()), 32), 128)


def test_a_bundle_of_the_package_is_found_whatever_lies_in_the_present_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nano").mkdir()
    monkeypatch.chdir(tmp_path)
    reference = open_reference(load_bundle(BUNDLED["nano"]), None, threads=1)
    assert reference.same_weights is True


def test_compared_frames_are_spread_over_the_clip() -> None:
    assert frames_to_note(range(4)) == {0, 1, 2, 3}
    chosen = sorted(frames_to_note(range(10, 42)))
    assert (chosen[:2], chosen[-1], len(chosen)) == ([10, 11], 41, 6)


def test_the_command_writes_a_page_that_needs_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    full_bundle: Bundle,
    model_folder: Path,
    clip_folder: Path,
    tmp_path: Path,
) -> None:
    page, data = tmp_path / "report.html", tmp_path / "report.json"
    options = ["--reference", model_folder, "--source", clip_folder, "--threads", 1]
    outputs = ["--report", page, "--json", data]

    code = run(monkeypatch, "verify", full_bundle.path, *options, *outputs)

    said = capsys.readouterr()
    assert code == 0, said.err
    assert "every budget holds" in said.err
    text = page.read_text()
    assert text.count("<svg") == 4
    assert text.count("<figure") == 4
    assert not re.search(r'(src|href)="(?!data:)', text)
    found = json.loads(data.read_text())
    assert found["problems"] == []
    assert len(found["frames"]) == 2 * 6
    assert found["j_and_f"] > 0.99


def test_a_broken_budget_is_named_and_ends_with_exit_code_1(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    full_bundle: Bundle,
    tmp_path: Path,
) -> None:
    bad = spoilt(full_bundle, Graph.MEMORY_ENCODER, tmp_path)
    options = ["--reference", full_bundle.path, "--frames", "0:3", "--threads", 1]

    assert run(monkeypatch, "verify", bad.path, *options) == 1
    assert "memory_encoder, output memory" in capsys.readouterr().err

    assert run(monkeypatch, "verify", bad.path, *options, "--swap", "each") == 1
    rows = capsys.readouterr().out.splitlines()
    exact = [row for row in rows if "0.00e+00" in row]
    assert len(exact) == 1
    assert "memory_encoder" in exact[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "j_and_f"], "NAME=VALUE"),
        (["--budget", "speed=1"], "no budget 'speed'"),
        (["--swap", "each", "--json", "x.json"], "stands alone"),
        (["--frames", "3:"], "no end of its own"),
        (["--layers", "memory_encoder"], "needs --reference with another bundle"),
        (["--frames", "0:1"], "1 frame"),
        (["--reference", "nowhere"], "nowhere"),
        (["--point", "5,5", "--prompts", "p.json"], "not both"),
    ],
)
def test_bad_input_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    full_bundle: Bundle,
    tmp_path: Path,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "verify", full_bundle.path, *options) in (1, 2)
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_the_reference_runs_on_a_backend_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    full_bundle: Bundle,
    tmp_path: Path,
) -> None:
    options = [full_bundle.path, "--frames", "0:2", "--threads", 1]
    bundle = ["--reference", full_bundle.path]
    data = tmp_path / "report.json"

    code = run(
        *(monkeypatch, "verify", *options, *bundle, "--json", data),
        *("--backend", "cpu", "--reference-backend", "cpu"),
    )
    assert code == 0
    facts = json.loads(data.read_text())["facts"]
    assert facts["backend"] == facts["reference backend"] == "onnxruntime-cpu"

    # ONNX graphs do not run on TensorRT, whatever the machine.
    other = shutil.copytree(full_bundle.path, tmp_path / "other")
    on_tensorrt = ["--reference", other, "--reference-backend", "tensorrt"]
    assert run(monkeypatch, "verify", *options, *on_tensorrt) == 1
    assert f"{other} has no tensorrt engine" in capsys.readouterr().err

    assert run(monkeypatch, "verify", *options, "--reference-backend", "cpu") == 1
    assert "the reference runs in PyTorch, not on cpu" in capsys.readouterr().err.replace("\n", " ")


def test_the_guilty_layer_is_found(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    full_bundle: Bundle,
    tmp_path: Path,
) -> None:
    model = onnx.load(full_bundle.graph_path(Graph.MEMORY_ENCODER))
    faulty = [node for node in model.graph.node if node.op_type == "Conv"][2]
    weight = next(t for t in model.graph.initializer if t.name == faulty.input[1])
    larger = numpy_helper.to_array(weight) * np.float32(1.1)
    weight.CopyFrom(numpy_helper.from_array(larger, weight.name))
    bad = trial_bundle(full_bundle, tmp_path, {Graph.MEMORY_ENCODER: model})
    options = ["--reference", full_bundle.path, "--frames", "0:3", "--threads", 1]
    monkeypatch.setenv("COLUMNS", "200")

    assert run(monkeypatch, "verify", bad.path, *options, "--layers", "memory_encoder") == 1

    rows = capsys.readouterr().out.splitlines()
    start = next(i for i, row in enumerate(rows) if "operator" in row)
    first = rows[start + 2].split()
    assert (first[0], first[1]) == (faulty.output[0], "Conv")


def test_a_reference_of_another_geometry_is_refused(full_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="another geometry"):
        open_reference(full_bundle, str(BUNDLED["nano"]))


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        prompted_clip(tmp_path / "none.mp4", FrameRange(0, 4), 64)


def test_charts_leave_out_what_is_not_finite_and_round_upwards() -> None:
    drawn = line_chart("a & b", {"x": [(0, 1.0), (1, math.inf)]}, x_label="n", low=0, high=2)
    assert "a &amp; b" in drawn
    assert re.search(r'points="[\d.]+,[\d.]+"', drawn)
    assert [ceiling(v) for v in ([0.3], [1.0], [math.inf], [], [7.0])] == [0.5, 1.0, 1.0, 1.0, 10.0]
