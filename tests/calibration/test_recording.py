"""Inputs of every graph, recorded while tracking."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sam2_edge import Bundle
from sam2_edge.bundle.contract import Graph, graph_specs
from sam2_edge.calibration.frames import CalibrationFrames
from sam2_edge.calibration.recording import record_inputs


def test_inputs_of_every_graph_are_recorded_while_tracking(
    full_bundle: Bundle, calibration_frames: CalibrationFrames, tmp_path: Path
) -> None:
    recording = record_inputs(full_bundle, calibration_frames, tmp_path)
    found = {graph: list(recording.inputs(graph)) for graph in Graph}

    for graph, spec in graph_specs(full_bundle.manifest.geometry).items():
        # The tracker on a CPU makes masks at the size of the frame by itself.
        assert bool(found[graph]) == recording.has(graph) == (graph is not Graph.MASK_BITS)
        for feeds in found[graph]:
            assert {n: x.dtype.name for n, x in feeds.items()} == {
                s.name: s.dtype for s in spec.inputs
            }
            assert all(np.isfinite(x).all() for x in feeds.values())
    attention, decoder = found[Graph.MEMORY_ATTENTION], found[Graph.MASK_DECODER]
    assert [attention[0][n].shape[0] for n in ("memory", "memory_rows")] == [2, 1]
    assert [attention[-1][n].shape[0] for n in ("memory", "memory_rows")] == [14, 7]
    assert attention[-1]["pointers"].shape[0] == 15  # all that 16 calibration_frames leave
    labels = {tuple(feeds["point_labels"].ravel()) for feeds in decoder}
    assert labels == {(1,), (2, 3), (-1,), (1, 0), (-1, -1)}
    assert {int(f["has_mask"][0]) for f in decoder} == {0, 1}
    assert {int(b) for f in found[Graph.MEMORY_ENCODER] for b in f["binarize"]} == {0, 1}
