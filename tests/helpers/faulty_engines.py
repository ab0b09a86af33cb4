"""ONNX graphs that compute wrongly as an engine might, for engines that are ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

Fault = Literal["other sizes", "rows differ"]


def spoil(path: Path, output: str, fault: Fault) -> None:
    """Make the float32 `output` [B, ...] of a graph wrong.

    Args:
        path: The ONNX file.
        output: Which output.
        fault: "other sizes": in batches of more than one object; "rows differ": in all rows but
            the first.
    """
    model = onnx.load(path)
    graph = model.graph
    rank = len(next(o for o in graph.output if o.name == output).type.tensor_type.shape.dim)
    right = f"{output}_right"
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [right if name == output else name for name in names]
    constants = {
        "zero": np.int64(0),
        "one": np.int64(1),
        "column": np.array([-1, *[1] * (rank - 1)]),
    }
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), f"spoil_{name}")
        for name, value in constants.items()
    )
    nodes = [
        ("Shape", [right], "shape"),
        ("Gather", ["spoil_shape", "spoil_zero"], "objects"),
    ]
    if fault == "other sizes":
        nodes += [("Cast", ["spoil_objects"], "factor")]
    else:
        nodes += [
            ("Range", ["spoil_zero", "spoil_objects", "spoil_one"], "range"),
            ("Reshape", ["spoil_range", "spoil_column"], "rows"),
            ("Add", ["spoil_rows", "spoil_one"], "from_one"),
            ("Cast", ["spoil_from_one"], "factor"),
        ]
    for operator, inputs, name in nodes:
        attributes = {"to": onnx.TensorProto.FLOAT} if operator == "Cast" else {}
        graph.node.append(helper.make_node(operator, inputs, [f"spoil_{name}"], **attributes))
    graph.node.append(helper.make_node("Mul", [right, "spoil_factor"], [output]))
    onnx.save(model, path)
