"""Which layers are quantized, with which ranges, and how close the result is."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from sam2_edge.bundle.contract import GraphTarget
from sam2_edge.calibration.frames import CalibrationFrames
from sam2_edge.calibration.qdq import RECIPES, quantizable_layers, quantize_model
from sam2_edge.calibration.ranges import METHODS, OPERATORS, Method, collect_ranges


def test_all_layers_with_weights_but_the_first_and_last_are_quantizable(
    encoder: onnx.ModelProto,
) -> None:
    names = quantizable_layers(encoder)
    nodes = {n.name: n for n in encoder.graph.node}
    weights = {t.name for t in encoder.graph.initializer}
    assert len(names) > 20
    assert all(nodes[n].op_type in OPERATORS and nodes[n].input[1] in weights for n in names)
    first = next(n for n in encoder.graph.node if n.op_type == "Conv")
    assert first.name not in names
    weighted = [n for n in nodes.values() if n.op_type in OPERATORS and n.input[1] in weights]
    assert weighted[-1].name not in names


@pytest.mark.parametrize("method", METHODS)
def test_ranges_cover_the_observed_values(
    method: Method, encoder: onnx.ModelProto, calibration_frames: CalibrationFrames
) -> None:
    node = next(n for n in encoder.graph.node if n.name == quantizable_layers(encoder)[3])
    name = node.input[0]
    watched = onnx.ModelProto()
    watched.CopyFrom(encoder)
    watched.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    session = ort.InferenceSession(watched.SerializeToString())
    seen = np.concatenate([session.run([name], dict(f))[0].ravel() for f in calibration_frames])

    least, most = collect_ranges(encoder, calibration_frames, method)[name]

    if method == "minmax":
        assert (least, most) == pytest.approx((seen.min(), seen.max()), rel=1e-5)
    assert ((seen >= least) & (seen <= most)).mean() > (1.0 - 1e-9 if method == "minmax" else 0.98)
    assert max(-least, most) <= np.abs(seen).max() * 1.01


@pytest.mark.parametrize("target", RECIPES)
def test_a_quantized_graph_is_near_the_float_one(
    target: GraphTarget, encoder: onnx.ModelProto, calibration_frames: CalibrationFrames
) -> None:
    names = quantizable_layers(encoder)
    made = quantize_model(
        encoder, collect_ranges(encoder, calibration_frames, "minmax"), names, target
    )

    onnx.checker.check_model(made, full_check=True)
    feeds = dict(next(iter(calibration_frames)))
    wanted = ort.InferenceSession(encoder.SerializeToString()).run(None, feeds)
    got = ort.InferenceSession(made.SerializeToString()).run(None, feeds)
    for a, b in zip(got, wanted, strict=True):
        error = np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2))
        assert 1e-4 < error < 0.1
    weights = [t for t in made.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    matrices = [onnx.numpy_helper.to_array(t) for t in weights if len(t.dims) >= 2]
    assert len(matrices) == len(names)
    largest = max(np.abs(matrix.astype(int)).max() for matrix in matrices)
    # Two products with an unsigned byte fit into 16 bits, as processors without VNNI add them.
    assert largest == 127 if target == "gpu" else 60 < largest <= (2**15 - 1) // (2 * 255)


def test_quantizing_no_layer_changes_nothing(
    encoder: onnx.ModelProto, calibration_frames: CalibrationFrames
) -> None:
    made = quantize_model(encoder, collect_ranges(encoder, calibration_frames, "minmax"), [], "gpu")
    feeds = dict(next(iter(calibration_frames)))
    results = [
        ort.InferenceSession(m.SerializeToString()).run(None, feeds) for m in (encoder, made)
    ]
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
