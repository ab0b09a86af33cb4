"""`sam2-edge export` and `sam2-edge build-engines`."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from sam2_edge import BackendError, Bundle, ExportError, VideoTracker, load_bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.cli.main import cli
from sam2_edge.cli.progress import ExportProgress
from sam2_edge.export.tensorrt.bundle import build_engines
from sam2_edge.export.tensorrt.options import EngineOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--calibration-frames 20", "--calibration-frames has no effect without --calibrate"),
        ("--calibration-method entropy", "method has no effect without --precision int8"),
        ("--precision fp16 --int8-budget 0.005", "budget has no effect without --precision int8"),
        ("--precision int8", "int8 needs frames to calibrate with"),
        ("--max-objects 4", "--max-objects has no effect without --target tensorrt"),
        ("--compute-capability 8.6", "--compute-capability has no effect without --target"),
        ("--target cuda --max-objects 4", "--max-objects has no effect without --target tensorrt"),
    ],
)
def test_options_without_effect_are_refused(options: str, message: str, tmp_path: Path) -> None:
    arguments = ["export", "nano", "--output", str(tmp_path / "b"), *options.split()]
    refused = CliRunner().invoke(cli, arguments)
    assert isinstance(refused.exception, ExportError)
    assert message in str(refused.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed"
)
def test_the_command_builds_engines_from_a_bundle(small_bundle: Bundle, tmp_path: Path) -> None:
    command = ["build-engines", str(small_bundle.path), "--target", "tensorrt-rtx"]
    options = ["--output", str(tmp_path / "engines"), "--compute-capability", "8.6,8.9"]

    done = CliRunner().invoke(cli, [*command, *options, "--max-objects", "3"])

    assert done.exit_code == 0, done.output
    assert re.search(r"\d+ MiB of activation memory, shared by all engines", done.stderr)
    engines = load_bundle(tmp_path / "engines")
    engine = engines.manifest.graphs[Graph.IMAGE_ENCODER].engine
    assert engine is not None
    assert engine.compute_capabilities == ((8, 6), (8, 9))
    assert engines.max_size(Graph.MASK_DECODER, "B") == 3
    with pytest.raises(BackendError, match="holds engines of tensorrt-rtx"):
        VideoTracker(engines, backend="cpu")
    with pytest.raises(ExportError, match="already holds engines"):
        build_engines(engines, tmp_path / "again", EngineOptions("tensorrt-rtx", ((8, 6),)))


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed"
)
def test_float32_for_turing_is_refused_before_anything_is_exported(tmp_path: Path) -> None:
    target = ["--target", "tensorrt-rtx", "--compute-capability", "7.5"]
    command = ["export", "nano", "--output", str(tmp_path / "b"), *target, "--precision", "fp32"]
    refused = CliRunner().invoke(cli, command)
    assert isinstance(refused.exception, ExportError)
    assert "no float32 products for compute capability 7.5" in str(refused.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_graphs_for_gpus_are_in_float16_by_default(tmp_path: Path) -> None:
    command = ["export", "nano", "--target", "cuda", "--output", str(tmp_path / "cuda")]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    manifest = load_bundle(tmp_path / "cuda").manifest
    assert manifest.target == "gpu"
    assert manifest.reference is not None
    assert {entry.precision for entry in manifest.graphs.values()} == {"fp16"}
    assert not any(entry.engine for entry in manifest.graphs.values())


def test_export_refuses_a_bundle_and_names_the_command_for_engines(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    command = ["export", str(small_bundle.path), "--output", str(tmp_path / "engines")]
    refused = CliRunner().invoke(cli, command)
    assert isinstance(refused.exception, ExportError)
    assert "is a bundle, not a model" in str(refused.exception)
    assert f"sam2-edge build-engines {small_bundle.path}" in str(refused.exception)


def test_the_summary_shows_the_difference_beside_its_tolerance(
    small_bundle: Bundle, full_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    ExportProgress().summarize(Path("small"), small_bundle)
    rounded = capsys.readouterr().err
    ExportProgress().summarize(Path("full"), full_bundle)
    exact = capsys.readouterr().err

    pattern = r": 6 graphs; largest difference .* \d\.\de-0[5-9] in \w+, tolerance 1e-03\n"
    assert re.search("small" + pattern, rounded)
    assert re.search("full" + pattern, exact)
    assert "one more rounding step" in rounded
    assert "rounded" not in exact
