"""Every command tracks under the memory policy that it is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sam2_edge import Bundle, Prompt, Sam2EdgeError, VideoTracker
from sam2_edge.cli.main import cli
from sam2_edge.proof.dataset import write_dataset
from sam2_edge.synth import clip as synthetic_clip
from tests.clips import Clip

POLICY = "distractor"
"""It differs from the original from the third frame after the prompt on."""


def call(*arguments: object) -> int:
    return cli([str(argument) for argument in arguments], standalone_mode=False) or 0


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("command", ["track", "run"])
def test_results_are_those_of_the_policy(
    small_bundle: Bundle, clip: Clip, clip_folder: Path, tmp_path: Path, command: str
) -> None:
    target = tmp_path / ("out.jsonl" if command == "track" else "out")
    call(
        *(command, clip_folder, "--bundle", small_bundle.path, "--point", "34,38"),
        *("--jsonl", target, "--memory-policy", POLICY),
        *(("--unpaced",) if command == "run" else ()),
    )
    lines = records(target if target.is_file() else next(target.iterdir()))
    found = {}
    for policy in (POLICY, "original"):
        tracker = VideoTracker(
            small_bundle,
            clip_frames=6 if command == "track" else None,
            remember_absent=command == "track",
            memory_policy=policy,
        )
        found[policy] = [
            tracker.track(frame, [Prompt(1, points=[(34, 38)])] if index == 0 else [])[1].iou
            for index, frame in enumerate(clip.frames[:6])
        ]
    assert [line["iou"] for line in lines] == pytest.approx(found[POLICY], abs=1e-4)
    assert [line["iou"] for line in lines] != pytest.approx(found["original"], abs=1e-4)


def test_evaluations_of_two_policies_are_never_mixed(small_bundle: Bundle, tmp_path: Path) -> None:
    drawn = synthetic_clip(2, frames=7, size=64, objects=1, photographs=False)
    write_dataset(tmp_path / "data", [drawn])
    masks = {}
    for policy in (POLICY, "original"):
        out = tmp_path / policy
        command = ["eval", tmp_path / "data", small_bundle.path, "--output", out]
        call(*command, "--prompt", "click", "--memory-policy", policy)
        assert json.loads((out / "settings.json").read_text())["memory_policy"] == policy
        masks[policy] = [p.read_bytes() for p in sorted(out.rglob("*.png"))]
        assert len(masks[policy]) == 7
    with pytest.raises(Sam2EdgeError, match="memory_policy original, this one has distractor"):
        call(*command, "--prompt", "click", "--memory-policy", POLICY)
    assert masks[POLICY] != masks["original"]


def test_verify_follows_under_the_policy(small_bundle: Bundle, tmp_path: Path) -> None:
    drifts = {}
    for policy in (POLICY, "original"):
        target = tmp_path / f"{policy}.json"
        call(
            *("verify", small_bundle.path, "--reference", small_bundle.path, "--frames", "0:6"),
            *("--json", target, "--memory-policy", policy),
        )
        found = json.loads(target.read_text())
        assert policy in json.dumps(found)
        drifts[policy] = found
    assert drifts[POLICY] != drifts["original"]


def test_bench_names_the_policy_and_does_not_mix_it_with_peak_memory(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    target = tmp_path / "bench.json"
    call(
        *("bench", small_bundle.path, "--frames", 34, "--json", target),
        *("--memory-policy", POLICY, "--against", small_bundle.path),
    )
    assert f"memory policy {POLICY}" in target.read_text()
    with pytest.raises(Exception, match="leave out --recent-memories and --memory-policy"):
        call("bench", small_bundle.path, "--memory", "--memory-policy", POLICY)
