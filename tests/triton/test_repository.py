"""`sam2-edge triton` and `export --triton-repository`: model repositories for Triton."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sam2_edge import Bundle, load_bundle
from sam2_edge.cli import export as export_module
from sam2_edge.export import pipeline
from sam2_edge.models import checkpoints
from sam2_edge.triton.repository import write_triton_repository
from tests.helpers.cli import call, run
from tests.helpers.triton import parse_config


def config_of(model: Path) -> dict[str, Any]:
    return parse_config((model / "config.pbtxt").read_text())


def test_a_model_holds_its_configuration_and_a_copy_of_the_bundle(tmp_path: Path) -> None:
    call("triton", "nano", "--repository", tmp_path, "--name", "cups", "--instances", 2)
    config = config_of(tmp_path / "cups")
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("cups", "python", 0)
    assert config["instance_group"] == [{"kind": "KIND_CPU", "count": 2}]
    assert config["model_transaction_policy"] == {"decoupled": "false"}
    assert config["parameters"]["backend"] == {"string_value": "cpu"}
    assert (tmp_path / "cups/1/model.py").is_file()
    assert load_bundle(tmp_path / "cups/1/bundle").manifest == load_bundle("nano").manifest


def test_triton_lets_the_model_refuse_sequences_instead_of_queueing_them(tmp_path: Path) -> None:
    call("triton", "nano", "--repository", tmp_path)
    config = config_of(tmp_path / "sam2_edge")
    candidates = config["sequence_batching"]["oldest"]["max_candidate_sequences"]
    assert candidates > 100 * int(config["parameters"]["max_sequences"]["string_value"])


def test_a_bundle_for_gpus_runs_on_every_gpu(tmp_path: Path) -> None:
    nano = load_bundle("nano")
    for_gpus = Bundle(nano.path, nano.manifest.model_copy(update={"target": "gpu"}))
    write_triton_repository(for_gpus, tmp_path)
    config = config_of(tmp_path / "sam2_edge")
    assert config["instance_group"] == [{"kind": "KIND_GPU", "count": 1}]
    assert config["parameters"]["backend"] == {"string_value": "auto"}


def test_a_model_that_exists_is_replaced_on_request_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ("triton", "nano", "--repository", tmp_path)
    call(*again)
    assert run(monkeypatch, *again) == 1
    assert "sam2_edge exists; give another name or pass --overwrite" in capsys.readouterr().err
    call(*again, "--device", "gpu", "--overwrite")
    assert config_of(tmp_path / "sam2_edge")["instance_group"][0]["kind"] == "KIND_GPU"


def test_what_is_no_model_is_never_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sam2_edge").mkdir()
    assert run(monkeypatch, "triton", "nano", "--repository", tmp_path, "--overwrite") == 1
    assert "is not a model of Triton, so it is not overwritten" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "../other", "a b", 'x"'])
def test_a_name_that_would_leave_the_repository_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "triton", "nano", "--repository", tmp_path, "--name", name) == 1
    assert "cannot be the name of a model" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_export_checks_the_repository_before_it_loads_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models/sam2_edge").mkdir(parents=True)
    monkeypatch.setattr(export_module, "_needing_the_extra", None)
    arguments = ("--output", tmp_path / "out", "--triton-repository", tmp_path / "models")
    assert run(monkeypatch, "export", "nano", *arguments) == 1
    assert "sam2_edge exists; give another name" in capsys.readouterr().err


def test_export_writes_the_model_of_what_it_exported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded = SimpleNamespace(name="nano", source="the package")
    monkeypatch.setattr(checkpoints, "load_model", lambda *_, **__: loaded)
    monkeypatch.setattr(pipeline, "export_bundle", lambda *_, **__: load_bundle("nano"))
    models = tmp_path / "models"
    call("export", "nano", "--output", tmp_path / "out", "--triton-repository", models)
    written = load_bundle(models / "sam2_edge/1/bundle")
    assert written.manifest == load_bundle("nano").manifest
