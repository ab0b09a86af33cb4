"""`sam2-edge verify`: report, exit code and errors."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sam2_edge import Bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.bundle.names import BUNDLED
from sam2_edge.export.int8_search import trial_bundle
from tests.helpers.cli import run
from tests.helpers.faulty import faulty_bundle


def test_the_report_is_a_self_contained_page(
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

    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert "within all tolerances" in shown.out
    text = page.read_text()
    assert text.count("<svg") == 4
    assert text.count("<figure") == 4
    assert not re.search(r'(src|href)="(?!data:)', text)
    found = json.loads(data.read_text())
    assert found["problems"] == []
    assert len(found["frames"]) == 2 * 6
    assert found["j_and_f"] > 0.99


def test_an_exceeded_tolerance_is_named_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    full_bundle: Bundle,
    tmp_path: Path,
) -> None:
    bad = faulty_bundle(full_bundle, Graph.MEMORY_ENCODER, tmp_path)
    options = ["--reference", full_bundle.path, "--frames", "0:3", "--threads", 1]

    assert run(monkeypatch, "verify", bad.path, *options) == 1
    assert "memory_encoder, output memory" in capsys.readouterr().out

    assert run(monkeypatch, "verify", bad.path, *options, "--swap", "each") == 1
    rows = capsys.readouterr().out.splitlines()
    exact = [row for row in rows if "0.00e+00" in row]
    assert len(exact) == 1
    assert "memory_encoder" in exact[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tolerance", "j_and_f"], "NAME=VALUE"),
        (["--tolerance", "speed=1"], "no tolerance 'speed'"),
        (["--swap", "each", "--json", "x.json"], "cannot be combined"),
        (["--frames", "3:"], "is endless"),
        (["--layers", "memory_encoder"], "requires another bundle as --reference"),
        (["--frames", "0:1"], "1 frame"),
        (["--reference", "nowhere"], "nowhere"),
        (["--point", "5,5", "--prompts", "p.json"], "not both"),
    ],
)
def test_bad_input_gives_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    full_bundle: Bundle,
    tmp_path: Path,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "verify", full_bundle.path, *options) in (1, 2)
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_the_reference_has_its_own_backend(
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
    found = json.loads(data.read_text())
    assert found["backend"] == found["reference_backend"] == "onnxruntime-cpu"

    # ONNX graphs do not run on TensorRT, whatever the machine.
    other = shutil.copytree(full_bundle.path, tmp_path / "other")
    on_tensorrt = ["--reference", other, "--reference-backend", "tensorrt"]
    assert run(monkeypatch, "verify", *options, *on_tensorrt) == 1
    assert f"{other} has no tensorrt engine" in capsys.readouterr().err

    assert run(monkeypatch, "verify", *options, "--reference-backend", "cpu") == 1
    assert "the reference runs in PyTorch, not on cpu" in capsys.readouterr().err.replace("\n", " ")


def test_the_faulty_layer_is_found(
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


def test_a_reference_that_does_not_exist_fails_before_pytorch_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the reference is loaded")

    monkeypatch.setattr("sam2_edge.evaluation.verify.references.open_reference", load)
    assert run(monkeypatch, "verify", "nano", "--reference", "sam2.1-tiny") == 1
    assert "did you mean sam2.1-hiera-tiny?" in capsys.readouterr().err


def test_the_graph_that_is_never_compared_is_not_listed_as_idle(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "verify", "nano", "--reference", str(BUNDLED["nano"])) == 0
    assert "not run" not in capsys.readouterr().err
