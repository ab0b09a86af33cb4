"""`sam2-edge segment`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.cli import run


def test_segment_writes_masks_overlay_and_json(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    options = ["--masks", tmp_path / "m", "--overlay", tmp_path / "o.png", "--json", tmp_path / "j"]
    command = ["segment", clip_folder / "0.png", "--bundle", bundle, "--point", "34,38"]

    assert run(monkeypatch, *command, *options, "--multimask") == 0

    records = json.loads((tmp_path / "j").read_text())
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["1_0.png", "1_1.png", "1_2.png"]
    assert cv2.imread(str(tmp_path / "o.png")).shape == (128, 128, 3)
    assert [r["rank"] for r in records] == [0, 1, 2]
    mask = cv2.imread(str(tmp_path / "m" / "1_0.png"), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(mask)) <= {0, 255}


def test_an_image_whose_name_is_not_utf_8_is_segmented(
    monkeypatch: pytest.MonkeyPatch, bundle: str, clip_folder: Path, tmp_path: Path
) -> None:
    image = tmp_path / os.fsdecode(b"caf\xe9.png")
    image.write_bytes((clip_folder / "0.png").read_bytes())
    masks = tmp_path / os.fsdecode(b"m\xe4sks")
    options = ["--point", "34,38", "--masks", masks]
    assert run(monkeypatch, "segment", image, "--bundle", bundle, *options) == 0
    assert [path.name for path in masks.iterdir()] == ["1.png"]
