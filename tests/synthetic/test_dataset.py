"""Synthetic data sets have the layout of DAVIS, with prompts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2_edge.errors import SinkError
from sam2_edge.runtime.sources.prompt_file import load_prompts
from sam2_edge.synthetic import SyntheticClip, clip
from sam2_edge.synthetic.dataset import write_dataset


@pytest.fixture(scope="module")
def clips() -> list[SyntheticClip]:
    return [clip(seed, size=96, split="heldout") for seed in range(2)]


def test_a_dataset_is_in_the_layout_of_davis(tmp_path: Path, clips: list[SyntheticClip]) -> None:
    write_dataset(tmp_path / "data", clips[:2])
    names = sorted(p.name for p in (tmp_path / "data/JPEGImages/00001").iterdir())
    assert names == [f"{i:05d}.jpg" for i in range(32)]
    for t in (0, 31):
        with Image.open(tmp_path / f"data/Annotations/00001/{t:05d}.png") as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), clips[1].masks[t])
    records = json.loads((tmp_path / "data/clips.json").read_text())
    assert [r["seed"] for r in records] == [0, 1]
    (prompts,) = load_prompts(tmp_path / "data/prompts/00001.json").values()
    for prompt in prompts:
        ((x, y),) = prompt.points
        assert clips[1].mask(0, prompt.object_id)[int(y), int(x)]


def test_an_object_that_is_hidden_at_first_is_clicked_when_it_appears(tmp_path: Path) -> None:
    drawn = clip(1, frames=24, size=96, objects=12, split="heldout")
    late = {i + 1 for i in range(12) if not drawn.present[0, i] and drawn.present[:, i].any()}
    assert late
    write_dataset(tmp_path, [drawn])
    prompts = json.loads((tmp_path / "prompts/00000.json").read_text())
    assert {p["object"] for p in prompts if p["frame"] > 0} == late
    for prompt in prompts:
        ((x, y),) = prompt["points"]
        assert drawn.mask(prompt["frame"], prompt["object"])[int(y), int(x)]


def test_a_dataset_does_not_replace_files(tmp_path: Path, clips: list[SyntheticClip]) -> None:
    (tmp_path / "mine").write_text("text")
    with pytest.raises(SinkError, match="not empty"):
        write_dataset(tmp_path, clips[:1])
    with pytest.raises(SinkError, match="is not a folder"):
        write_dataset(tmp_path / "mine", clips[:1])
