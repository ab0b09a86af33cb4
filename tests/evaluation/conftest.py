"""Data sets in every layout, `sam2-edge eval` on them, and a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from transformers import Sam2VideoModel

from sam2_edge import Bundle
from sam2_edge.evaluation.vos.datasets import LayoutName
from tests.helpers.cli import run
from tests.helpers.datasets import Eval, late_clip, write_layout


@pytest.fixture(scope="session")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[LayoutName, Path]:
    """A data set of two videos in each layout; the second object appears on frame `LATE`."""
    root = tmp_path_factory.mktemp("layouts")
    clips = {"zebra": late_clip(3, 13), "cup": late_clip(1, 7)}
    return {name: write_layout(root / name, name, clips) for name in get_args(LayoutName)}


@pytest.fixture
def evaluate(
    monkeypatch: pytest.MonkeyPatch, small_bundle: Bundle, layouts: dict[LayoutName, Path]
) -> Eval:
    """Runs the command on the data set of a layout or on another folder; returns the exit code."""

    def call(dataset: LayoutName | Path, output: Path, *options: object) -> int:
        folder = dataset if isinstance(dataset, Path) else layouts[dataset]
        common = ["--output", output, "--threads", 1]
        return run(monkeypatch, "eval", folder, small_bundle.path, *common, *options)

    return call


@pytest.fixture(scope="session")
def model_folder(small_model: Sam2VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model as a folder that can be given by name."""
    folder = tmp_path_factory.mktemp("model")
    small_model.save_pretrained(folder)
    return folder
