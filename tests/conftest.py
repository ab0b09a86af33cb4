"""Shared fixtures: a small random model of the full architecture and its bundle, built once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import onnx
import pytest
import torch
from transformers import EdgeTamVideoModel, Sam2VideoModel

from sam2_edge import Bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.calibration.frames import CalibrationFrames, collect_frames
from sam2_edge.export import pipeline
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import ExportOptions
from sam2_edge.models.checkpoints import load_model
from sam2_edge.models.random_init import random_model
from tests.helpers.clips import Clip, moving_shapes
from tests.helpers.kept_graphs import KeptGraphs
from tests.helpers.late_device import LateDevice
from tests.helpers.models import (
    EDGETAM_SEED,
    IMAGE_SIZE,
    MEMORY_TOKENS,
    SEED,
    frames_of_a_clip,
    loaded,
    small_config,
    small_edgetam_config,
)

# Before pytest-xdist starts its processes: the same module is then the same bytes in all of them.
os.environ.setdefault("PYTHONHASHSEED", "0")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """PyTorch and ONNX Runtime alternate on tiny graphs: spinning idle threads only cost time."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as the runtime does: peaked attention is full of denormals


@pytest.fixture(scope="session", autouse=True)
def _graphs_exported_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Export each module once, since PyTorch's exporter would take most of the tests' time."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    kept = KeptGraphs(folder / "kept_graphs", pipeline.export_onnx)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "export_onnx", kept.export_onnx)
        yield


@pytest.fixture(scope="session")
def small_model() -> Sam2VideoModel:
    return random_model(small_config(), SEED)


@pytest.fixture(scope="session")
def small_edgetam() -> EdgeTamVideoModel:
    return random_model(small_edgetam_config(), EDGETAM_SEED)


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Undo what commands that run in this process set up."""
    package = logging.getLogger("sam2_edge")
    before = (package.level, package.propagate, package.handlers[:])
    yield
    package.setLevel(before[0])
    package.propagate, package.handlers[:] = before[1:]


@pytest.fixture(scope="session")
def small_bundle(small_model: Sam2VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Memory rounded to bfloat16, which is the default."""
    return export_bundle(loaded(small_model), tmp_path_factory.mktemp("bundles") / "small")


@pytest.fixture(scope="session")
def full_bundle(small_model: Sam2VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Unrounded memory."""
    target = tmp_path_factory.mktemp("bundles") / "full"
    return export_bundle(loaded(small_model), target, ExportOptions(memory_rounding="none"))


@pytest.fixture(scope="session")
def gpu_bundle(small_model: Sam2VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Graphs in the form for a GPU, in float32, with unrounded memory."""
    target = tmp_path_factory.mktemp("bundles") / "gpu"
    options = ExportOptions(target="gpu", memory_rounding="none")
    return export_bundle(loaded(small_model), target, options)


@pytest.fixture(scope="session")
def tokens_bundle(small_model: Sam2VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Memory attention over some of the tokens, with unrounded memory."""
    target = tmp_path_factory.mktemp("bundles") / "tokens"
    options = ExportOptions(memory_tokens=MEMORY_TOKENS, memory_rounding="none")
    return export_bundle(loaded(small_model), target, options)


@pytest.fixture(scope="session")
def nano_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundled model, exported in float32 with memory stored in full."""
    target = tmp_path_factory.mktemp("bundles") / "nano"
    return export_bundle(load_model("nano"), target, ExportOptions(memory_rounding="none"))


@pytest.fixture(scope="session")
def clip() -> Clip:
    return moving_shapes()


@pytest.fixture
def clip_folder(clip: Clip, tmp_path: Path) -> Path:
    """The first six frames of the clip as PNG files 0.png to 5.png."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, frame in enumerate(clip.frames[:6]):
        cv2.imwrite(str(folder / f"{index}.png"), frame)
    return folder


@pytest.fixture
def encoder(full_bundle: Bundle) -> onnx.ModelProto:
    """The image encoder in float32."""
    return onnx.load(full_bundle.graph_path(Graph.IMAGE_ENCODER))


@pytest.fixture
def calibration_frames(tmp_path: Path) -> CalibrationFrames:
    kept = tmp_path / "kept"
    kept.mkdir()
    folder = frames_of_a_clip(tmp_path / "data", frames=20)
    return collect_frames(folder, kept, size=IMAGE_SIZE, count=16)


@pytest.fixture
def late_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LateDevice]:
    """A GPU that runs late in place of the machine's; misuse of it fails the test."""
    device = LateDevice(tmp_path)
    device.install(monkeypatch)
    yield device
    device.check()
