"""Reference outputs for engines, computed by ONNX Runtime on the CPU from the ONNX graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle import Bundle
from sam2_edge.bundle.contract import Graph, graph_specs
from sam2_edge.bundle.manifest import Profile
from sam2_edge.errors import ExportError
from sam2_edge.runtime.backends.check_inputs import CheckCase, check_cases, check_inputs, rows_of
from sam2_edge.runtime.backends.engine_check import (
    CaseReference,
    OutputReference,
    References,
    magnitude_of,
    sample_positions,
)

_DIGITS = 9
"""Significant digits that tell any two float32 numbers apart."""


def write_references(
    source: Bundle,
    profiles: Mapping[Graph, Profile],
    path: Path,
    on_graph: Callable[[Graph], None] = lambda _graph: None,
) -> None:
    """Write samples of the outputs of a bundle of ONNX graphs at the sizes of the profiles.

    Raises:
        ExportError: ONNX Runtime is missing, or a graph fails.
    """
    graphs = {}
    for graph in Graph:
        on_graph(graph)
        graphs[graph] = _graph_references(source, graph, profiles[graph])
    path.write_text(References(graphs=graphs).model_dump_json() + "\n", encoding="utf-8")


def _graph_references(source: Bundle, graph: Graph, profile: Profile) -> dict[str, CaseReference]:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise ExportError(
            f"engines are checked against ONNX Runtime, which cannot be imported ({error}); "
            "install it: pip install onnxruntime"
        ) from error
    path = source.graph_path(graph)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    geometry = source.manifest.geometry
    spec = graph_specs(geometry)[graph]
    references = {}
    for case in check_cases(profile):
        if case.equal_rows:
            continue  # the first row of the largest case
        inputs = check_inputs(spec, case, geometry)
        rows = _reference_rows(case)
        # Row by row: attention in one piece takes much memory.
        runs = [
            dict(
                zip(
                    (tensor.name for tensor in spec.outputs),
                    session.run(None, rows_of(spec, inputs, row)),
                    strict=True,
                )
            )
            for row in rows
        ]
        outputs = {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}
        references[case.name] = _case_reference(graph, rows, outputs)
    return references


def _reference_rows(case: CheckCase) -> tuple[int, ...]:
    """The first and the last row of the batch."""
    return tuple(dict.fromkeys((0, case.sizes.get("B", 1) - 1)))


def _case_reference(
    graph: Graph, rows: tuple[int, ...], outputs: Mapping[str, NDArray[Any]]
) -> CaseReference:
    stored = {}
    for name, array in outputs.items():
        if not np.isfinite(array).all():
            raise ExportError(
                f"{graph.value} gives {name} that is not finite in ONNX Runtime; export the "
                "graphs again, with another precision"
            )
        flat = array.reshape(len(array), -1)
        samples = flat[:, sample_positions(graph, name, flat.shape[1])].astype(np.float64)
        stored[name] = OutputReference(
            magnitude=magnitude_of(array),
            samples=tuple(tuple(float(f"{value:.{_DIGITS}g}") for value in row) for row in samples),
        )
    return CaseReference(rows=rows, outputs=stored)
