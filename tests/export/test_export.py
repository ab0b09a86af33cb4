"""A failed export leaves no bundle; exported graphs follow the contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from transformers import Sam2VideoModel

from sam2_edge import Bundle, ExportError
from sam2_edge.bundle.contract import PARITY_TOLERANCE, Graph, GraphSpec, TensorSpec, graph_specs
from sam2_edge.export import onnx_graph
from sam2_edge.export.onnx_graph import export_onnx
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.export.validate import check_numbers, check_structure, example_feeds
from sam2_edge.models.families import geometry_of
from sam2_edge.models.graphs.mask_prompt import MaskPrompt
from sam2_edge.models.random_init import random_model
from tests.helpers.models import loaded, small_config


def test_every_graph_records_its_difference_to_pytorch(small_bundle: Bundle) -> None:
    for entry in small_bundle.manifest.graphs.values():
        assert entry.parity.keys() == {o.name for o in entry.outputs}
        assert all(0 <= value < 1e-4 for value in entry.parity.values())
        assert entry.difference == max(entry.parity.values())


def test_graphs_contain_no_paths_of_the_exporting_machine(small_bundle: Bundle) -> None:
    for graph in Graph:
        content = small_bundle.graph_path(graph).read_bytes()
        assert str(Path(__file__).parent.parent.parent).encode() not in content
        assert b"site-packages" not in content


def test_layer_normalization_stays_one_operator(small_bundle: Bundle) -> None:
    for graph in (Graph.IMAGE_ENCODER, Graph.MEMORY_ATTENTION, Graph.MASK_DECODER):
        operators = {n.op_type for n in onnx.load(small_bundle.graph_path(graph)).graph.node}
        assert "LayerNormalization" in operators
        assert "Pow" not in operators


def test_an_export_that_disagrees_with_pytorch_leaves_no_bundle(
    small_model: Sam2VideoModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PARITY_TOLERANCE, "fp32", 0.0)
    with pytest.raises(ExportError, match="image_encoder in fp32 does not agree with PyTorch"):
        export_bundle(loaded(small_model), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_with_other_weights_is_detected(
    small_model: Sam2VideoModel, small_bundle: Bundle
) -> None:
    geometry = geometry_of(small_model.config)
    spec = graph_specs(geometry)[Graph.MASK_PROMPT]
    path = small_bundle.graph_path(Graph.MASK_PROMPT)
    module = MaskPrompt(small_model)
    check_numbers(path, module, spec, example_feeds(spec, geometry), rounded=False)
    module.taps = module.taps * 1.01
    with pytest.raises(
        ExportError, match="mask_prompt in fp32 does not agree .* mask_logits differs"
    ):
        check_numbers(path, module, spec, example_feeds(spec, geometry), rounded=False)


def test_large_weights_go_to_a_file_beside_the_graph(
    small_model: Sam2VideoModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "PROTOBUF_LIMIT", 1000)
    geometry = geometry_of(small_model.config)
    spec = graph_specs(geometry)[Graph.MASK_PROMPT]
    path = tmp_path / "mask_prompt.onnx"

    export_onnx(MaskPrompt(small_model).eval(), spec, path)

    check_structure(path, spec)
    check_numbers(path, MaskPrompt(small_model), spec, example_feeds(spec, geometry), rounded=False)
    assert (tmp_path / "mask_prompt.onnx.data").stat().st_size > 1000
    mask = np.ones((1, 1, 128, 128), np.float32)
    assert ort.InferenceSession(path).run(None, {"mask": mask})[1].max() == pytest.approx(10)


SPEC = GraphSpec(
    Graph.MASK_PROMPT,
    (TensorSpec("x", "float32", ("B", 4)),),
    (TensorSpec("y", "float32", ("B", 4)),),
)


def write(path: Path, nodes: list[onnx.NodeProto], *, out: str = "y") -> Path:
    """A small ONNX file from x [B,4] to y [B,4]."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4])],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, ["B", 4])],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def test_structure_accepts_a_graph_that_follows_the_contract(tmp_path: Path) -> None:
    check_structure(write(tmp_path / "g.onnx", [helper.make_node("Relu", ["x"], ["y"])]), SPEC)


def test_structure_refuses_data_dependent_shapes(tmp_path: Path) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["z"]), helper.make_node("Relu", ["x"], ["y"])]
    with pytest.raises(ExportError, match="operator NonZero"):
        check_structure(write(tmp_path / "g.onnx", nodes), SPEC)


def test_structure_refuses_other_names(tmp_path: Path) -> None:
    path = write(tmp_path / "g.onnx", [helper.make_node("Relu", ["x"], ["z"])], out="z")
    with pytest.raises(ExportError, match="outputs .*'z'.* instead of .*'y'"):
        check_structure(path, SPEC)


def test_structure_refuses_an_invalid_graph(tmp_path: Path) -> None:
    path = write(tmp_path / "g.onnx", [helper.make_node("Relu", ["nowhere"], ["y"])])
    with pytest.raises(ExportError, match="not valid ONNX"):
        check_structure(path, SPEC)


def test_a_memory_beyond_the_bounds_of_a_bundle_is_refused(tmp_path: Path) -> None:
    config = small_config()
    config.num_maskmem = 100
    with pytest.raises(ExportError, match="slots 100: .* less than or equal to 64"):
        export_bundle(loaded(random_model(config, 0)), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
