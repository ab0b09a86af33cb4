"""Prompts files are read, or rejected with the name of the invalid field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam2_edge import Prompt, PromptError
from sam2_edge.runtime.sources.prompt_file import check_prompts, load_prompts


def write(folder: Path, content: Any) -> Path:
    path = folder / "prompts.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_prompts_file_is_read_with_its_masks(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "cup.png"), np.eye(8, dtype=np.uint8) * 255)
    entries = [
        {"frame": 0, "object": 1, "points": [[3, 4], [5, 6]], "labels": [1, 0]},
        {"frame": 0, "object": 2, "box": [1, 2, 3, 4]},
        {"frame": 9, "object": 1, "mask": "cup.png"},
    ]
    script = load_prompts(write(tmp_path, entries))

    assert [p.object_id for p in script[0]] == [1, 2]
    (late,) = script[9]
    assert late.mask is not None
    np.testing.assert_array_equal(late.mask, np.eye(8, dtype=np.uint8))


BAD_FILES = {
    "not JSON": ("[{", "not JSON"),
    "not a list": ({"frame": 0}, "list"),
    "no object": ([{"frame": 0, "points": [[1, 2]]}], r"0\.object"),
    "negative frame": ([{"frame": -1, "object": 1}], r"0\.frame"),
    "unknown field": ([{"frame": 0, "object": 1, "point": [1, 2]}], r"0\.point"),
    "three coordinates": ([{"frame": 0, "object": 1, "points": [[1, 2, 3]]}], r"0\.points"),
    "missing mask": ([{"frame": 0, "object": 1, "mask": "none.png"}], r"none\.png cannot be read"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_an_invalid_prompts_file_is_rejected(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        load_prompts(write(tmp_path, content))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000], ids=["bytes", "too deep"])
def test_a_prompts_file_that_is_not_json_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "prompts.json").write_bytes(content)
    with pytest.raises(PromptError, match=r"prompts\.json"):
        load_prompts(tmp_path / "prompts.json")


def test_a_missing_prompts_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="cannot be read"):
        load_prompts(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ({}, "no prompt is given"),
        ({0: []}, "no prompt is given"),
        ({7: [Prompt(1, points=[(1, 1)])]}, "frame 7, but the frames are 2 to 6"),
        ({1: [Prompt(1, points=[(1, 1)])]}, "frame 1, but the frames are 2 to 6"),
        ({3: [Prompt(1, points=[(1, 1)]), Prompt(1, box=(1, 1, 2, 2))]}, "prompted twice"),
    ],
)
def test_prompts_outside_the_source_are_rejected(script: Any, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        check_prompts(script, 2, 5)
