"""A graph that does not take or return what its contract says is refused when it is opened."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import GraphProto, TensorProto

from sam2_edge import BackendError, Bundle, BundleError, load_bundle
from sam2_edge.bundle.contract import Graph, TensorSpec, graph_specs
from sam2_edge.bundle.manifest import MANIFEST_FILE
from sam2_edge.bundle.names import BUNDLED
from sam2_edge.bundle.storage import file_entry, save_manifest
from sam2_edge.runtime.backends.ort_cpu import OnnxRuntimeCpu
from sam2_edge.runtime.backends.signature import check_signature
from sam2_edge.runtime.backends.tensorrt import engine_tensors


def with_mask_prompt(folder: Path, change: Callable[[GraphProto], object]) -> Bundle:
    """A copy of the bundled model with another mask prompt graph, and the right hash."""
    shutil.copytree(BUNDLED["nano"], folder, copy_function=os.link)
    path = folder / "mask_prompt.onnx"
    model = onnx.load(path)
    change(model.graph)
    path.unlink()
    path.write_bytes(model.SerializeToString().replace(b"NOT_UTF8", b"\xff" * 8))
    manifest = load_bundle(BUNDLED["nano"]).manifest
    entry = manifest.graphs[Graph.MASK_PROMPT].model_copy(
        update=file_entry(folder, path.name).model_dump()
    )
    graphs = {**manifest.graphs, Graph.MASK_PROMPT: entry}
    (folder / MANIFEST_FILE).unlink()
    save_manifest(folder, manifest.model_copy(update={"graphs": graphs}))
    return load_bundle(folder)


def rename_input(graph: GraphProto) -> None:
    for node in graph.node:
        node.input[:] = ["other" if name == "mask" else name for name in node.input]
    graph.input[0].name = "other"


def add_output(graph: GraphProto) -> None:
    graph.node.add(op_type="Identity", input=["mask"], output=["more"])
    graph.output.add(name="more").type.CopyFrom(graph.input[0].type)


def fix_batch(graph: GraphProto) -> None:
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del graph.value_info[:]


def replace_by_another(graph: GraphProto) -> None:
    """Both outputs are integers of one axis."""
    del graph.node[:]
    graph.node.add(op_type="Size", input=["mask"], output=["count"])
    graph.node.add(op_type="Constant", output=["axis"]).attribute.add(
        name="value_ints", type=onnx.AttributeProto.INTS, ints=[0]
    )
    for value in graph.output:
        graph.node.add(op_type="Unsqueeze", input=["count", "axis"], output=[value.name])
        value.type.CopyFrom(onnx.helper.make_tensor_type_proto(TensorProto.INT64, [1]))
    del graph.value_info[:]


CHANGES = {
    "other name": (rename_input, r"inputs other float32 \[\?, 1, 256, 256\] instead of mask f"),
    "one more": (add_output, r"outputs more float32 .* instead of no others"),
    "fixed axis": (fix_batch, r"inputs mask float32 \[1, 1, 256, 256\] instead of mask .*\[\?, 1,"),
    "other dtype": (replace_by_another, r"outputs mask_input tensor\(int64\) \[1\]"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_a_graph_with_other_tensors_is_refused(
    change: Callable[[GraphProto], object], message: str, tmp_path: Path
) -> None:
    bundle = with_mask_prompt(tmp_path / "copy", change)
    with pytest.raises(BundleError, match=rf"mask_prompt\.onnx: mask_prompt has the {message}"):
        OnnxRuntimeCpu(bundle)


def test_a_graph_that_onnx_runtime_refuses_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def break_it(graph: GraphProto) -> None:
        # ONNX Runtime's message about it is a ValueError, on which its Python code would try again.
        graph.node[0].op_type = "NOT_UTF8"

    bundle = with_mask_prompt(tmp_path / "copy", break_it)
    with pytest.raises(BackendError, match=r"mask_prompt\.onnx cannot be loaded by ONNX Runtime"):
        OnnxRuntimeCpu(bundle)
    assert capfd.readouterr().out == ""


class Engine:
    """An engine of TensorRT with the given tensors, which needs no GPU."""

    def __init__(self, tensors: list[tuple[str, str, str, tuple[int, ...]]]) -> None:
        self._tensors = {name: rest for name, *rest in tensors}
        self.num_io_tensors = len(tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> object:
        trt = pytest.importorskip("tensorrt_rtx")
        return getattr(trt.TensorIOMode, self._tensors[name][0])

    def get_tensor_dtype(self, name: str) -> object:
        trt = pytest.importorskip("tensorrt_rtx")
        return getattr(trt.DataType, self._tensors[name][1])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name][2]


MEMORY_ENCODER = [
    ("memory", "OUTPUT", "FLOAT", (-1, 64, 16, 16)),
    ("embedding", "INPUT", "FLOAT", (1, 128, 16, 16)),
    ("mask_logits", "INPUT", "FLOAT", (-1, 1, 64, 64)),
    ("object_score", "INPUT", "FLOAT", (-1,)),
    ("binarize", "INPUT", "INT32", (-1,)),
]


def test_an_engine_is_compared_with_the_contract() -> None:
    geometry = load_bundle("nano").manifest.geometry
    spec = graph_specs(geometry)[Graph.MEMORY_ENCODER]
    path = Path("memory_encoder.engine")
    check_signature(path, spec, *engine_tensors(Engine(MEMORY_ENCODER)))

    half = [*MEMORY_ENCODER[:-1], ("binarize", "INPUT", "HALF", (-1,))]
    with pytest.raises(
        BundleError, match=r"inputs binarize float16 \[\?\] instead of binarize int32"
    ):
        check_signature(path, spec, *engine_tensors(Engine(half)))
    assert TensorSpec("binarize", "int32", ("?",)) in engine_tensors(Engine(MEMORY_ENCODER))[0]
