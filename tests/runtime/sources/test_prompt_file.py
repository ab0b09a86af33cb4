"""Prompts files are read, or rejected with the name of the invalid field."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam2_edge import Prompt, PromptError
from sam2_edge.runtime.sources.prompt_file import check_mask_ids, check_prompts, load_prompts


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
    np.testing.assert_array_equal(late.mask, np.eye(8, dtype=np.bool_))


BAD_FILES = {
    "not JSON": ("[{", "not valid JSON"),
    "not a list": ({"frame": 0}, r"put it into a list, as in \[{\.\.\.}\]"),
    "no object": ([{"frame": 0, "points": [[1, 2]]}], r"0\.object"),
    "negative frame": ([{"frame": -1, "object": 1}], r"0\.frame"),
    "unknown field": (
        [{"frame": 0, "object": 1, "point": [1, 2]}],
        r"0\.point: did you mean points\?",
    ),
    "another program's field": ([{"frame": 0, "obj_id": 1}], r"0\.obj_id: did you mean object\?"),
    "a strange field": ([{"frame": 0, "depth": 1}], r"0\.depth: .* the fields are object, points"),
    "a point without a list": (
        [{"frame": 0, "object": 1, "points": [5, 6]}],
        r"0\.points\.0: 5 is not a point; give a list of points, as in \[\[5, \.\.\.\]\]",
    ),
    "a bad label": (
        [{"frame": 0, "object": 1, "points": [[1, 2]], "labels": [2]}],
        r"json: 0: label 2; give 1 for foreground or 0",
    ),
    "an empty box": ([{"frame": 0, "object": 1, "box": [9, 9, 3, 3]}], "0: box 9,9,3,3 is empty"),
    "no prompt": ([{"frame": 0, "object": 1}], "0: an empty prompt; give points, a box or a mask"),
    "three coordinates": ([{"frame": 0, "object": 1, "points": [[1, 2, 3]]}], r"0\.points"),
    "missing mask": ([{"frame": 0, "object": 1, "mask": "none.png"}], r"none\.png does not exist"),
    "a folder as mask": ([{"frame": 0, "object": 1, "mask": ""}], "is a folder"),
    "half a pair as mask": ([{"frame": 0, "object": 1, "mask": "\ud800"}], "cannot be the name"),
    "NUL in a mask": ([{"frame": 0, "object": 1, "mask": "a\0b"}], "cannot be the name"),
    "true as a number": ([{"frame": 0, "object": True, "points": [[1, 2]]}], r"0\.object"),
    "true as a coordinate": ([{"frame": 0, "object": 1, "points": [[1, True]]}], r"0\.points"),
    "true as a label": (
        [{"frame": 0, "object": 1, "points": [[1, 1]], "labels": [True]}],
        "labels",
    ),
    "false as a frame": ([{"frame": False, "object": 1, "points": [[1, 2]]}], r"0\.frame"),
    "text as a number": ([{"frame": "0", "object": 1, "points": [[1, 2]]}], r"0\.frame"),
    "a long name": ([{"frame": 0, "object": 1, "name": "x" * 41}], r"0\.name: .*at most 40"),
    "NaN": ('[{"frame": 0, "object": 1, "points": [[NaN, 1]]}]', "NaN is not a number"),
    "infinity": ('[{"frame": 0, "object": 1, "box": [1, 1, -Infinity, 1]}]', "-Infinity is not a"),
    "1e400": ('[{"frame": 0, "object": 1, "points": [[1e400, 1]]}]', r"0\.points.*finite"),
    "a huge id": ([{"frame": 0, "object": 2**40, "points": [[1, 1]]}], r"0\.object.*2147483647"),
    "5,000 digits": (f'[{{"frame": 0, "object": {"9" * 5000}}}]', "5000 digits"),
    "a field given twice": ('[{"frame": 0, "frame": 3, "object": 1}]', "given twice"),
    "two values": ("[] []", "not valid JSON"),
    "empty": ("", "not valid JSON"),
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
    with pytest.raises(PromptError, match=r"none\.json does not exist"):
        load_prompts(tmp_path / "none.json")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_a_prompts_file_of_a_windows_editor_is_read(tmp_path: Path, encoding: str) -> None:
    text = '[\r\n{"frame": 0, "object": 1, "points": [[3, 4.5]]}\r\n]\r\n'
    (tmp_path / "prompts.json").write_bytes(text.encode(encoding))
    assert load_prompts(tmp_path / "prompts.json")[0][0].points == [(3.0, 4.5)]


def test_a_mask_may_be_elsewhere_and_have_any_name(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    cv2.imwrite(str(tmp_path / "cup.png"), np.eye(8, dtype=np.uint8))
    (tmp_path / "cup.png").rename(tmp_path / name)
    (tmp_path / "in").mkdir()
    for mask in (f"../{name}", str(tmp_path / name)):
        path = write(tmp_path / "in", [{"frame": 0, "object": 1, "mask": mask}])
        assert np.asarray(load_prompts(path)[0][0].mask).sum() == 8


def test_an_object_that_evaluators_take_for_void_is_not_written() -> None:
    check_mask_ids({0: [Prompt(254)]})
    with pytest.raises(PromptError, match="255 does not fit an indexed mask .* up to 254"):
        check_mask_ids({0: [Prompt(255)]})


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
