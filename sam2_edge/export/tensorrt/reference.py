"""Reference outputs for engines, computed by ONNX Runtime on the CPU from the ONNX graphs."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle import Bundle, load_bundle
from sam2_edge.bundle.contract import Graph, graph_specs
from sam2_edge.bundle.manifest import Profile
from sam2_edge.bundle.storage import atomic_file, file_entry, save_manifest
from sam2_edge.errors import ExportError
from sam2_edge.export.tensorrt.options import EngineOptions
from sam2_edge.export.tensorrt.profiles import engine_profiles
from sam2_edge.extras import naming_the_extra
from sam2_edge.runtime.backends.check_inputs import CheckCase, check_cases, check_inputs, rows_of
from sam2_edge.runtime.backends.engine_check import (
    REFERENCE_FILE,
    CaseReference,
    OutputReference,
    References,
    load_references,
    magnitude_of,
    sample_positions,
)

_log = logging.getLogger(__name__)

_DIGITS = 9
"""Significant digits that tell any two float32 numbers apart."""


OnGraph = Callable[[Graph], None]


def add_references(
    bundle: Bundle, options: EngineOptions, on_graph: OnGraph = lambda _graph: None
) -> Bundle:
    """Add reference outputs to a bundle of ONNX graphs.

    Engines can then be built from it, and checked, on a machine without ONNX Runtime.

    Args:
        bundle: The bundle.
        options: What engines will be built for.
        on_graph: Called with each graph in turn.

    Raises:
        BackendError: ONNX Runtime is missing.
        ExportError: A graph fails.
    """
    with atomic_file(bundle.path / REFERENCE_FILE) as partial:
        profiles = engine_profiles(bundle.manifest.geometry, options)
        write_references(bundle, profiles, partial, on_graph)
    update = {"reference": file_entry(bundle.path, REFERENCE_FILE)}
    save_manifest(bundle.path, bundle.manifest.model_copy(update=update))
    return load_bundle(bundle.path)


def take_references(
    source: Bundle,
    profiles: Mapping[Graph, Profile],
    path: Path,
    on_graph: OnGraph = lambda _graph: None,
) -> bool:
    """Copy or compute the reference outputs of the engines of a bundle.

    Returns:
        Whether there are any: without ONNX Runtime there may be none, which is logged.

    Raises:
        BundleError: Those of the bundle are damaged.
        ExportError: A graph fails.
    """
    if source.manifest.reference is not None:
        stored = load_references(source)
        if all(stored.fit(graph, profile) for graph, profile in profiles.items()):
            shutil.copyfile(source.path / source.manifest.reference.file, path)
            return True
    if find_spec("onnxruntime") is None:
        _log.warning(
            "the engines will not be checked, because ONNX Runtime is missing and %s has no "
            "reference outputs for these sizes; install it (pip install onnxruntime), or export "
            "the graphs with --target cuda",
            source.path,
        )
        return False
    write_references(source, profiles, path, on_graph)
    return True


def write_references(
    source: Bundle,
    profiles: Mapping[Graph, Profile],
    path: Path,
    on_graph: OnGraph = lambda _graph: None,
) -> None:
    """Write samples of the outputs of a bundle of ONNX graphs at the sizes of the profiles.

    Raises:
        BackendError: ONNX Runtime is missing.
        ExportError: A graph fails.
    """
    graphs = {}
    for graph in Graph:
        on_graph(graph)
        graphs[graph] = _graph_references(source, graph, profiles[graph])
    path.write_text(References(graphs=graphs).model_dump_json() + "\n", encoding="utf-8")


def _graph_references(source: Bundle, graph: Graph, profile: Profile) -> dict[str, CaseReference]:
    with naming_the_extra():
        import onnxruntime as ort

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
        references[case.name] = CaseReference(
            sizes=dict(case.sizes), rows=rows, outputs=_stored(graph, outputs)
        )
    return references


def _reference_rows(case: CheckCase) -> tuple[int, ...]:
    """The first and the last row of the batch."""
    return tuple(dict.fromkeys((0, case.sizes.get("B", 1) - 1)))


def _stored(graph: Graph, outputs: Mapping[str, NDArray[Any]]) -> dict[str, OutputReference]:
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
    return stored
