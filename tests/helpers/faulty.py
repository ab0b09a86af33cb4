"""Faulty bundles, for tests that must locate the fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from sam2_edge import Bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.export.int8_search import trial_bundle


def faulty_bundle(source: Bundle, graph: Graph, folder: Path) -> Bundle:
    """Return a bundle in which all weights of one graph are slightly too large."""
    model = onnx.load(source.graph_path(graph))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim >= 2:
            tensor.CopyFrom(numpy_helper.from_array(values * np.float32(1.02), tensor.name))
    return trial_bundle(source, folder, {graph: model})
