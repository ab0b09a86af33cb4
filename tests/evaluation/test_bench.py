"""`sam2-edge bench`: consistent figures, and targets interleaved on the same frames."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sam2_edge import BackendError, Bundle, load_bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.evaluation.bench.flops import graph_flops
from sam2_edge.evaluation.bench.limits import MIN_COUNTED, UNCOUNTED_FRAMES
from sam2_edge.evaluation.bench.peak_memory import measure_peak
from sam2_edge.evaluation.bench.report import Extra, highest_rate, stage_rows
from sam2_edge.evaluation.bench.runner import InterleavedRun, LatencyStats, run_interleaved
from sam2_edge.evaluation.bench.targets import WHOLE, BundleTarget, Times, name_apart
from sam2_edge.runtime.backends.ort_cpu import OnnxRuntimeCpu
from sam2_edge.runtime.prompts import Prompt
from tests.helpers.cli import run, video
from tests.helpers.clips import moving_shapes

FRAMES = [np.zeros((8, 8, 3), np.uint8)] * (UNCOUNTED_FRAMES + MIN_COUNTED)


class Paced:
    """A target with fixed times that records its turns."""

    device = "cpu"

    def __init__(self, name: str, milliseconds: float, turns: list[str]) -> None:
        self.name, self._milliseconds, self._turns = name, milliseconds, turns

    def reset(self) -> None:
        self._turns.clear()

    def step(self, *_: Any) -> Times:
        self._turns.append(self.name)
        # The first frames take longer, and must not count.
        full = len(self._turns) > 2 * UNCOUNTED_FRAMES
        return {WHOLE: self._milliseconds if full else 1000.0}


def test_targets_are_interleaved_and_compared_frame_by_frame() -> None:
    turns: list[str] = []
    found = run_interleaved([Paced("a", 10.0, turns), Paced("b", 25.0, turns)], FRAMES, [Prompt(1)])

    assert turns[:6] == ["a", "b", "b", "a", "a", "b"]
    assert found.ratio("a", "b") == LatencyStats(2.5, 2.5, 2.5)
    assert found.frames_per_second("a") == pytest.approx(100.0)
    assert found.by_fill("b")[:2] == [(0, 1000.0), (1, 1000.0)]
    with pytest.raises(ValueError, match="give 34 or more"):
        run_interleaved([], FRAMES[1:], [])


def test_no_graph_exceeds_the_highest_rate_of_the_run() -> None:
    run = InterleavedRun(1, {"a": [{"image_encoder": 4.0}] * UNCOUNTED_FRAMES})
    run.times["a"] += [{"image_encoder": 2.0, WHOLE: 3.0}, {"image_encoder": 1.0, WHOLE: 2.0}]
    flops = {"a": {"image_encoder": 10**9}}
    extra = partial(Extra, LatencyStats(1, 1, 1), flops, memory={})

    faster = highest_rate([run], flops, product=5e11)

    assert faster == 1e12  # of the frame that took 1 ms
    assert highest_rate([run], flops, product=3e12) == 3e12
    assert highest_rate([replace(run, objects=2)], flops, product=5e11) == 5e11
    (row,) = [r for r in stage_rows(run, "a", extra(peak=faster)) if r[0] == "image_encoder"]
    assert row[-1] == "67 %"  # the median of 1 and 2 ms


def test_bundles_are_named_by_their_folders_and_apart(small_bundle: Bundle, tmp_path: Path) -> None:
    other = shutil.copytree(small_bundle.path, tmp_path / small_bundle.path.name)
    first, second = (
        BundleTarget(bundle, backend="cpu", threads=1)
        for bundle in (small_bundle, load_bundle(other))
    )
    assert first.name == second.name == small_bundle.path.name
    name_apart([first, second])
    assert (first.name, second.name) == (str(small_bundle.path), str(other))


def test_operations_are_counted_from_the_graph(tmp_path: Path) -> None:
    def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return helper.make_tensor(name, TensorProto.FLOAT, shape, np.zeros(shape).ravel())

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),  # B x 3 x 5 by 5 x 7
        helper.make_node("Conv", ["i", "k"], ["c"], group=2),  # 6 channels from 4, kernel 3 x 3
        helper.make_node("ConvTranspose", ["i", "t"], ["u"], strides=[2, 2]),
        helper.make_node("Gemm", ["g", "h"], ["z"], transA=1),
        helper.make_node("Relu", ["c"], ["r"]),
    ]
    inputs = [value("x", "B", 3, 5), value("i", "B", 4, 8, 8), value("g", 9, 2)]
    outputs = [value(name, *(["n"] * rank)) for name, rank in (("y", 3), ("u", 4), ("z", 2))]
    weights = [weight("w", 5, 7), weight("k", 6, 2, 3, 3), weight("t", 4, 3, 2, 2)]
    graph = helper.make_graph(
        nodes, "g", inputs, [*outputs, value("r", "B", 6, 6, 6)], [*weights, weight("h", 9, 4)]
    )
    path = tmp_path / "g.onnx"
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)

    product = 2 * 2 * 3 * 7 * 5
    convolution = 2 * (2 * 6 * 6 * 6) * (2 * 3 * 3)
    transposed = 2 * (2 * 4 * 8 * 8) * (3 * 2 * 2)
    gemm = 2 * (2 * 4) * 9
    assert graph_flops(path, {"B": 2}) == product + convolution + transposed + gemm


def test_operations_of_every_graph_can_be_counted(small_bundle: Bundle) -> None:
    few = {"R": 1, "M": 1, "P": 1, "B": 1, "N": 1, "H": 8, "K": 1}
    for graph in Graph:
        path = small_bundle.graph_path(graph)
        one, two = (graph_flops(path, {**few, "M": m, "B": b}) for m, b in ((1, 1), (7, 2)))
        assert one > 0
        assert two >= one
    attention = small_bundle.graph_path(Graph.MEMORY_ATTENTION)
    growth = [graph_flops(attention, {**few, "M": m}) for m in (1, 2, 3)]
    assert growth[2] - growth[1] == growth[1] - growth[0] > 0


def test_a_stage_is_the_time_of_its_graph(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OnnxRuntimeCpu.run

    def slowed(self: OnnxRuntimeCpu, graph: Graph, feeds: Any, outputs: Any = None) -> Any:
        if graph is Graph.MEMORY_ATTENTION:
            time.sleep(0.2)
        return run(self, graph, feeds, outputs)

    monkeypatch.setattr(OnnxRuntimeCpu, "run", slowed)
    target = BundleTarget(small_bundle, backend="cpu", threads=1)
    frames = moving_shapes(3).frames
    first, *_, last = (
        target.step(frame, [Prompt(1, points=[(34, 38)])] if index == 0 else [])
        for index, frame in enumerate(frames)
    )
    assert "memory_attention" not in first
    assert {g.value for g in Graph} - last.keys() == {"mask_prompt", "mask_bits"}
    assert 200 <= last["memory_attention"] < last[WHOLE]
    assert last["rest"] < 200  # without the sleep


def test_the_command_compares_a_bundle_with_pytorch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data, plot = tmp_path / "bench.json", tmp_path / "bench.svg"
    options = ["--frames", 34, "--objects", "1,2", "--threads", 1, "--memory"]
    outputs = ["--json", data, "--plot", plot]

    code = run(monkeypatch, "bench", "nano", "--against", "pytorch", *options, *outputs)

    shown = capsys.readouterr()
    assert code == 0, shown.err
    found = json.loads(data.read_text())
    assert [run["objects"] for run in found["runs"]] == [1, 2]
    ours, theirs = found["runs"][0]["targets"].values()
    assert ours["ratio"]["median"] == 1.0
    assert theirs["ratio"]["median"] > 0
    assert {"image_encoder", "memory_attention", "preprocess"} <= ours["stages"].keys()
    assert list(found["flops"]) == [next(iter(found["runs"][0]["targets"]))]
    assert next(iter(found["flops"].values()))["image_encoder"] > 1e9
    assert found["peak_flops_per_s"] > 1e9
    peaks = [peak["host"] for peak in found["memory"].values()]
    assert peaks[0] < peaks[1]  # PyTorch itself is larger than the whole process of nano
    assert plot.read_text().count("<rect") > 6
    assert "memory_attention" in shown.out


def test_peak_memory_of_a_missing_bundle_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="is not a bundle"):
        measure_peak(str(tmp_path), tmp_path, video(tmp_path / "clip.avi"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objects", "0"], "1 to 16"),
        (["--objects", "two"], "1 to 16"),
        (["--frames", "33"], "33"),
        (["--against", "nano"], "once"),
        (["--against", "nowhere"], "nowhere"),
        (["--source", "nowhere.mp4"], "nowhere.mp4"),
        (["--against", "pytorch-compiled", "--memory"], "pytorch-compiled"),
    ],
)
def test_bad_input_gives_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert run(monkeypatch, "bench", "nano", *options) in (1, 2)
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
