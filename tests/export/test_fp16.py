"""Conversion to float16: which nodes stay in float32, and how exact the rest is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from transformers import Sam2VideoModel

from sam2_edge import Bundle, VideoTracker
from sam2_edge.bundle.contract import Graph, GraphTarget
from sam2_edge.export.fp16 import fp32_only_nodes, overflowing_nodes, to_half
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.precision import PRECISION_MODES, ExportOptions, PrecisionMode
from tests.helpers.clips import Clip
from tests.helpers.models import loaded
from tools.fp16_emulation import emulate_fp16

SHAPE = (1, 1, 64, 64)
CLICK = (32, 38)
ANGLES = [
    helper.make_node("Mul", ["x", "k"], ["scaled"], name="scale"),
    helper.make_node("Sin", ["scaled"], ["sine"], name="sine"),
    helper.make_node("Relu", ["sine"], ["y"], name="after"),
]


def model(nodes: list[onnx.NodeProto], **constants: NDArray[np.float32]) -> onnx.ModelProto:
    """A graph from x, float32 [1,1,64,64], to y of any shape."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b", "c", "d"])],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return made


def run(made: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.generic]:
    """Run in ONNX Runtime, with the rounding that its CPU provider skips."""
    if any(t.data_type == TensorProto.FLOAT16 for t in made.graph.initializer):
        made = emulate_fp16(made)
    return ort.InferenceSession(made.SerializeToString()).run(None, {"x": x})[0]


def computed_in_half(made: onnx.ModelProto) -> set[str]:
    types = {
        v.name: v.type.tensor_type.elem_type
        for v in onnx.shape_inference.infer_shapes(made, strict_mode=True).graph.value_info
    }
    return {n.name for n in made.graph.node if types.get(n.output[0]) == TensorProto.FLOAT16}


def scalar(value: float) -> NDArray[np.float32]:
    return np.array(value, np.float32)


def test_angles_of_position_encodings_stay_in_float32() -> None:
    made = model(ANGLES, k=scalar(300.0))
    x = np.random.default_rng(0).random(SHAPE, np.float32)

    kept = fp32_only_nodes(made)
    half = to_half(made, kept)

    assert kept == {"scale", "sine"}
    assert "after" in computed_in_half(half)
    assert np.abs(run(half, x) - run(made, x)).max() < 1e-3
    assert np.abs(run(to_half(made, ()), x) - run(made, x)).max() > 0.05  # without the rule


@pytest.mark.parametrize(("axes", "kept"), [([2, 3], {"sum"}), ([3], set())])
def test_sums_that_float16_cannot_count_stay_in_float32(axes: list[int], kept: set[str]) -> None:
    made = model(
        [
            helper.make_node("ReduceSum", ["x", "axes"], ["s"], name="sum"),
            helper.make_node("Relu", ["s"], ["y"], name="after"),
        ],
        axes=np.array(axes),
    )

    assert fp32_only_nodes(made) == kept


def test_a_ratio_of_long_sums_stays_in_float32_up_to_its_comparison() -> None:
    made = model(
        [
            helper.make_node("ReduceSum", ["x", "axes"], ["s"], name="sum"),
            helper.make_node("Div", ["s", "total"], ["ratio"], name="ratio"),
            helper.make_node("Less", ["ratio", "threshold"], ["unstable"], name="decision"),
            helper.make_node("Where", ["unstable", "one", "x"], ["y"], name="after"),
        ],
        axes=np.array([2, 3]),
        total=scalar(4086),
        threshold=scalar(0.98),
        one=scalar(1),
    )
    x = np.zeros(SHAPE, np.float32)
    x.reshape(-1)[:4003] = 1.0  # 0.97969 of the total, which float16 rounds to its 0.98

    kept = fp32_only_nodes(made)

    assert kept == {"sum", "ratio", "decision"}
    np.testing.assert_array_equal(run(to_half(made, kept), x), run(made, x))
    assert (run(to_half(made, {"sum"}), x) != run(made, x)).any()  # without the rule


def test_a_constant_beyond_float16_keeps_its_node_in_float32() -> None:
    made = model([helper.make_node("Mul", ["x", "k"], ["y"], name="mul")], k=scalar(1e6))
    assert fp32_only_nodes(made) == {"mul"}


def test_overflowing_nodes_are_found_from_observed_values() -> None:
    made = model(
        [
            helper.make_node("Mul", ["x", "k"], ["large"], name="grow"),
            helper.make_node("Div", ["large", "k"], ["small"], name="shrink"),
            helper.make_node("Relu", ["small"], ["y"], name="after"),
        ],
        k=scalar(6e4),
    )
    x = np.full(SHAPE, 3.0, np.float32)

    kept = overflowing_nodes(made, [{"x": x / 100}, {"x": x}])

    assert kept == {"grow", "shrink"}
    assert computed_in_half(to_half(made, kept)) == {"small_half", "after"}
    assert overflowing_nodes(made, [{"x": x / 100}]) == set()


def test_outputs_and_resize_scales_stay_in_float32() -> None:
    made = model(
        [
            helper.make_node("Resize", ["x", "", "scales"], ["big"], name="up", mode="linear"),
            helper.make_node("Relu", ["big"], ["y"], name="relu"),
        ],
        scales=np.array([1, 1, 2, 2], np.float32),
    )
    half = to_half(made, ())
    onnx.checker.check_model(half, full_check=True)
    assert computed_in_half(half) >= {"up"}
    assert [v.type.tensor_type.elem_type for v in half.graph.output] == [TensorProto.FLOAT]
    assert run(half, np.ones(SHAPE, np.float32)).shape == (1, 1, 128, 128)


def test_named_inputs_and_outputs_become_float16() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="first"),
        helper.make_node("Neg", ["r"], ["y"], name="second"),
    ]

    def casts(keep: set[str], features: set[str]) -> list[tuple[str, str]]:
        half = to_half(model(nodes), keep, features)
        onnx.checker.check_model(half, full_check=True)
        types = [v.type.tensor_type.elem_type for v in (*half.graph.input, *half.graph.output)]
        assert types == [
            TensorProto.FLOAT16 if name in features else TensorProto.FLOAT for name in "xy"
        ]
        return [(n.input[0], n.output[0]) for n in half.graph.node if n.op_type == "Cast"]

    assert casts(set(), {"x", "y"}) == []
    assert casts(set(), {"x"}) == [("y_half", "y")]
    assert casts(set(), {"y"}) == [("x", "x_half")]
    # Nodes in float32 between float16 tensors.
    assert casts({"first", "second"}, {"x", "y"}) == [("x", "x_float"), ("y_float", "y")]


def test_a_tensor_that_many_nodes_read_is_cast_once() -> None:
    nodes = [helper.make_node("Relu", ["x"], [f"r{i}"], name=f"relu{i}") for i in range(3)]
    total = helper.make_node("Sum", ["r0", "r1", "r2"], ["y"], name="sum")
    half = to_half(model([*nodes, total]), ())
    casts = [(n.input[0], n.output[0]) for n in half.graph.node if n.op_type == "Cast"]
    assert casts == [("x", "x_half"), ("y_half", "y")]


@pytest.mark.parametrize(("target", "mode"), [("cpu", "fp16"), ("gpu", "fp16"), ("gpu", "mixed")])
def test_a_float16_bundle_is_smaller_and_tracks_similarly(
    target: GraphTarget,
    mode: PrecisionMode,
    full_bundle: Bundle,
    small_model: Sam2VideoModel,
    clip: Clip,
    tmp_path: Path,
) -> None:
    options = ExportOptions(precision=mode, target=target, memory_rounding="none")
    half_bundle = export_bundle(loaded(small_model), tmp_path / "half", options)

    for graph, precision in PRECISION_MODES[target][mode].items():
        smaller = (
            half_bundle.graph_path(graph).stat().st_size,
            full_bundle.graph_path(graph).stat().st_size,
        )
        assert half_bundle.manifest.graphs[graph].precision == precision
        if graph is Graph.MASK_BITS:  # no weights
            continue
        assert (smaller[0] < 0.7 * smaller[1]) == (precision == "fp16"), graph
    trackers = [VideoTracker(b, threads=1) for b in (full_bundle, half_bundle)]
    for tracker in trackers:
        tracker.track(clip.frames[0])
        tracker.prompt(1, points=[CLICK])
    for frame in clip.frames[1:5]:
        full, half = (t.track(frame)[1].logits for t in trackers)
        # Random weights amplify differences: no value is lost, but masks are not equal.
        assert np.isfinite(half).all()
        assert np.corrcoef(full.ravel(), half.ravel())[0, 1] > 0.98
    assert set(half_bundle.manifest.graphs) == set(Graph)
