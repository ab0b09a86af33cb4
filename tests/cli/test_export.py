"""`sam2-edge export` and `sam2-edge build-engines`."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from sam2_edge import BackendError, Bundle, ExportError, VideoTracker, load_bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.cli.main import cli
from sam2_edge.cli.progress import ExportProgress
from sam2_edge.export.tensorrt.bundle import build_engines
from sam2_edge.export.tensorrt.options import EngineOptions
from tests.helpers.cli import run


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


REFUSED_EARLY = [
    ("sam2.1-hiera-tny", "", "did you mean sam2.1-hiera-tiny?; known models: nano, edgetam-nano, "),
    ("{tmp}", "", "holds no config.json"),
    ("sam3", "--checkpoint {tmp}/sam3.pt", "sam3.pt does not exist"),
    ("nan", "--random-init 1", "did you mean nano?"),
    ("nano", "--image-size 100", "nano does not take image size 100; give a multiple of 32"),
    ("edgetam", "--image-size 512 --precision int8", "int8 needs frames to calibrate with"),
    ("edgetam", "--image-size 320", "give a multiple of 256 from 256 to 2048"),
    ("nano", "--precision int8 --calibrate {tmp}/none.mp4", "none.mp4 does not exist"),
    ("nano", "--output {tmp}", "exists; choose another folder"),
    ("nano", "--output /proc/none/there", "/proc/none/there cannot be made"),
]


def test_bad_arguments_are_refused_before_pytorch_is_imported(tmp_path: Path) -> None:
    """In one process of its own, since others have imported PyTorch."""
    commands = [
        ["export", *f"{model} --output {{tmp}}/out {options}".format(tmp=tmp_path).split()]
        for model, options, _ in REFUSED_EARLY
    ]
    for command in commands:
        command[1] = command[1].format(tmp=tmp_path)
    script = f"""
import sys
from sam2_edge import Sam2EdgeError
from sam2_edge.cli.main import cli
for command in {commands}:
    try:
        cli.main(command, standalone_mode=False)
    except Sam2EdgeError as error:
        print(error)
print({{"torch", "transformers"}} & sys.modules.keys())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    *errors, imported = done.stdout.splitlines()
    assert imported == "set()"
    for error, (*_, message) in zip(errors, REFUSED_EARLY, strict=True):
        assert message in error
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_says_that_nothing_was_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        assert list((tmp_path / "new").iterdir()) != []
        raise KeyboardInterrupt

    monkeypatch.setattr("sam2_edge.export.pipeline._Exporter.export", interrupt)
    assert run(monkeypatch, "export", "nano", "--output", tmp_path / "new" / "bundle") == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted; nothing was kept"
    assert list((tmp_path / "new").iterdir()) == []


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
