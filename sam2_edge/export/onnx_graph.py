"""One PyTorch graph module to one ONNX file that follows the contract."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from pathlib import Path

import onnx
import onnxscript.optimizer
import torch
from torch import nn

from sam2_edge.bundle.contract import GraphSpec
from sam2_edge.errors import ExportError

OPSET = 18
"""The newest operator set that TensorRT 10.3 (JetPack 6) supports fully."""

PROTOBUF_LIMIT = 2**31 - 2**20
"""Bytes of weights above which they go to a file beside the graph: protobuf allows 2 GB."""

_EXAMPLE = {"R": 7, "M": 2, "P": 3, "B": 2, "N": 5, "H": 6, "K": 3}
"""Sizes for tracing; distinct and above 1, so that no axis is taken as constant."""

_FOLD_LIMIT = 2**31


def export_onnx(module: nn.Module, spec: GraphSpec, path: Path) -> None:
    """Write a module as ONNX, with the names and dynamic axes of its contract.

    Weights above the protobuf limit go to `path` + ".data".

    Raises:
        ExportError: PyTorch cannot export the module.
    """
    example = tuple(
        torch.zeros(s.shape(**_EXAMPLE), dtype=getattr(torch, s.dtype)) for s in spec.inputs
    )
    dynamic = tuple(
        {i: axis for i, axis in enumerate(s.axes) if isinstance(axis, str)} for s in spec.inputs
    )
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=dynamic,
                input_names=[s.name for s in spec.inputs],
                output_names=[s.name for s in spec.outputs],
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"{spec.graph.value} could not be exported: {error}") from error
    assert program is not None  # with dynamo=True and no file name, a program is returned
    # Permuted projection weights and positions are constants: fold them whatever their size.
    onnxscript.optimizer.optimize(
        program.model, input_size_limit=_FOLD_LIMIT, output_size_limit=_FOLD_LIMIT
    )
    weights = sum(
        v.const_value.nbytes for v in program.model.graph.initializers.values() if v.const_value
    )
    program.save(path, external_data=weights > PROTOBUF_LIMIT)
    model = onnx.load(path, load_external_data=False)
    _strip_traces(model)
    _order_gelu(model.graph)
    path.write_bytes(model.SerializeToString())


def opset_of(path: Path) -> int:
    """Version of the standard operators that a graph uses."""
    model = onnx.load(path, load_external_data=False)
    return next(int(o.version) for o in model.opset_import if not o.domain)


def _strip_traces(model: onnx.ModelProto) -> None:
    """Remove the exporter's source locations: they contain paths of the exporting machine."""
    for node in model.graph.node:
        del node.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]


def _order_gelu(graph: onnx.GraphProto) -> None:
    """Write GELU as x (1 + erf) 0.5 instead of x (0.5 (1 + erf)).

    In that order ONNX Runtime fuses its five operators into one (`GeluFusion`).
    """
    makers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    for last in graph.node:
        halved = makers.get(last.input[1]) if last.op_type == "Mul" else None
        if halved is None or halved.op_type != "Mul" or readers[halved.output[0]] != 1:
            continue
        shifted = makers.get(halved.input[1])
        erf = makers.get(shifted.input[0]) if shifted and shifted.op_type == "Add" else None
        if erf is not None and erf.op_type == "Erf":
            half, x = halved.input[0], last.input[0]
            halved.input[0] = x
            last.input[0], last.input[1] = halved.output[0], half
