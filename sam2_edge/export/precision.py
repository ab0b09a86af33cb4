"""What a precision policy means for each graph, and how it is applied to an exported file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import onnx

from sam2_edge.contract import Graph, Precision
from sam2_edge.export.half import Feeds, delicate_nodes, overflowing_nodes, to_half

Policy = Literal["fp32", "mixed", "fp16"]
"""mixed: the two graphs that cost most in float16, what decides on masks and memory in float32."""

POLICIES: dict[Policy, dict[Graph, Precision]] = {
    "fp32": dict.fromkeys(Graph, "fp32"),
    "mixed": {
        Graph.IMAGE_ENCODER: "fp16",
        Graph.MEMORY_ATTENTION: "fp16",
        Graph.MASK_PROMPT: "fp32",
        Graph.MASK_DECODER: "fp32",
        Graph.MEMORY_ENCODER: "fp32",
    },
    "fp16": dict.fromkeys(Graph, "fp16"),
}


def halve(path: Path, feeds: Feeds) -> None:
    """Rewrite a float32 graph in float16; `feeds` shows where values are too large for it."""
    model = onnx.load(path)
    data = path.with_name(f"{path.name}.data")
    keep = delicate_nodes(model) | overflowing_nodes(model, feeds)
    onnx.save(to_half(model, keep), path)
    data.unlink(missing_ok=True)
