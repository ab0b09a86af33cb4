"""Every command respects --memory-policy and --recent-memories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sam2_edge import Bundle, Prompt, Sam2EdgeError, VideoTracker
from sam2_edge.bundle.contract import Graph
from sam2_edge.runtime.backends.ort_cpu import OnnxRuntimeCpu
from sam2_edge.synthetic import clip as synthetic_clip
from sam2_edge.synthetic.dataset import write_dataset
from tests.helpers.cli import call, lines_of
from tests.helpers.clips import Clip

POLICY = "distractor"
"""Its results differ from the original policy's from the third frame after the prompt."""


@pytest.mark.parametrize("command", ["track", "run"])
def test_track_and_run_use_the_policy(
    small_bundle: Bundle, clip: Clip, clip_folder: Path, tmp_path: Path, command: str
) -> None:
    target = tmp_path / ("out.jsonl" if command == "track" else "out")
    call(
        *(command, clip_folder, "--bundle", small_bundle.path, "--point", "34,38"),
        *("--jsonl", target, "--memory-policy", POLICY),
        *(("--unpaced",) if command == "run" else ()),
    )
    lines = lines_of(target if target.is_file() else next(target.iterdir()))
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


def test_eval_does_not_mix_two_policies(small_bundle: Bundle, tmp_path: Path) -> None:
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


def test_verify_uses_the_policy(small_bundle: Bundle, tmp_path: Path) -> None:
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


def test_bench_names_the_policy_and_refuses_it_with_peak_memory(
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


@pytest.fixture
def ages(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[list[int]]]:
    """Memory ages of every memory attention call, by backend in order of first use."""
    seen: dict[int, list[list[int]]] = {}
    ran = OnnxRuntimeCpu.run

    def recorded(self: OnnxRuntimeCpu, graph: Graph, feeds: Any, outputs: Any = None) -> Any:
        if graph is Graph.MEMORY_ATTENTION:
            seen.setdefault(id(self), []).append(feeds["memory_age"][:, 0].tolist())
        return ran(self, graph, feeds, outputs)

    monkeypatch.setattr(OnnxRuntimeCpu, "run", recorded)
    return seen


def oldest(ages: list[list[int]]) -> int:
    return max(age for call in ages for age in call)


def test_verify_uses_fewer_memories_in_the_bundle_only(
    small_bundle: Bundle, ages: dict[int, list[list[int]]], tmp_path: Path
) -> None:
    target = tmp_path / "fewer.json"
    call(
        *("verify", small_bundle.path, "--reference", small_bundle.path, "--frames", "0:8"),
        *("--json", target, "--recent-memories", 2, "--backend", "cpu", "--threads", 1),
        *("--tolerance", "j_and_f=0", "--tolerance", "presence=0"),
        *("--tolerance", "memory=9", "--tolerance", "pointer=9"),
    )

    ours, theirs = ages.values()
    assert oldest(ours) == 2
    assert oldest(theirs) == 6
    assert [0, 1, 2] in [sorted(set(ages)) for ages in ours]
    found = json.loads(target.read_text())
    assert found["recent_memories"] == 2
    differences = dict.fromkeys(range(8), 0.0)
    for row in found["frames"]:
        differences[row["frame"]] = max(differences[row["frame"]], row["logits"])
    # The prompt is on frame 0, so frame 4 is the first with three recent memories.
    assert [value > 0 for value in differences.values()] == [False] * 4 + [True] * 4


def test_verify_uses_all_memories_by_default(
    small_bundle: Bundle, ages: dict[int, list[list[int]]], tmp_path: Path
) -> None:
    target = tmp_path / "all.json"
    call(
        *("verify", small_bundle.path, "--reference", small_bundle.path, "--frames", "0:8"),
        *("--json", target, "--backend", "cpu", "--threads", 1),
    )
    assert [oldest(of_one) for of_one in ages.values()] == [6, 6]
    found = json.loads(target.read_text())
    assert found["recent_memories"] == 6
    assert {row["logits"] for row in found["frames"]} == {0.0}


def test_bench_compares_fewer_memories_with_all(
    small_bundle: Bundle, ages: dict[int, list[list[int]]], tmp_path: Path
) -> None:
    target = tmp_path / "bench.json"
    call(
        *("bench", small_bundle.path, "--against", small_bundle.path, "--frames", 34),
        *("--json", target, "--recent-memories", 2, "--backend", "cpu", "--threads", 1),
    )
    assert sorted(oldest(of_one) for of_one in ages.values()) == [2, 6]
    assert list(json.loads(target.read_text())["runs"][0]["targets"]) == [
        f"{small_bundle.path.name}, recent memories 2",
        small_bundle.path.name,
    ]
    with pytest.raises(Exception, match="leave out --recent-memories and --memory-policy"):
        call("bench", small_bundle.path, "--memory", "--recent-memories", 2)


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_more_memories_than_the_model_was_trained_with_are_rejected(
    small_bundle: Bundle, command: str
) -> None:
    against = ["--reference", small_bundle.path] if command == "verify" else []
    with pytest.raises(Sam2EdgeError, match="recent_memories is 7"):
        call(command, small_bundle.path, *against, "--recent-memories", 7, "--threads", 1)
