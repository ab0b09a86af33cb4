"""Tolerances of `sam2-edge verify`, by precision."""

from __future__ import annotations

import math

import pytest

from sam2_edge import Bundle, Sam2EdgeError
from sam2_edge.bundle.contract import PARITY_TOLERANCE, Graph
from sam2_edge.evaluation.verify.tolerances import LOOP_TOLERANCE, check_tolerances, tolerances_for


def test_each_graph_has_its_own_tolerance_and_the_loop_that_of_the_least_exact(
    full_bundle: Bundle,
) -> None:
    manifest = full_bundle.manifest
    exact = tolerances_for(manifest, {})
    assert exact.j_and_f == LOOP_TOLERANCE["fp32"]["j_and_f"]
    assert set(exact.graph.values()) == {PARITY_TOLERANCE["fp32"]}
    assert tolerances_for(manifest, {"j_and_f": 0.5}).j_and_f == 0.5
    assert set(tolerances_for(manifest, {"graph": 0.7}).graph.values()) == {0.7}
    graphs = dict(manifest.graphs)
    encoder, decoder = Graph.IMAGE_ENCODER, Graph.MASK_DECODER
    graphs[encoder] = graphs[encoder].model_copy(update={"precision": "int8"})
    graphs[decoder] = graphs[decoder].model_copy(update={"precision": "fp16"})
    coarse = manifest.model_copy(update={"graphs": graphs})
    for found in (tolerances_for(coarse, {}), tolerances_for(manifest, {}, coarse)):
        assert found.j_and_f == LOOP_TOLERANCE["int8"]["j_and_f"]
        assert found.graph[encoder] == PARITY_TOLERANCE["int8"]
        assert found.graph[decoder] == PARITY_TOLERANCE["fp16"]
        assert found.graph[Graph.MEMORY_ENCODER] == PARITY_TOLERANCE["fp32"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"iou": 1.0}, "no tolerance 'iou'"),
        ({"graph": -1.0}, "-1.0; give 0 or more"),
        ({"graph": math.inf}, "inf; give 0 or more"),
        ({"presence": 1.5}, "1.5; give 0 to 1"),
    ],
)
def test_invalid_tolerances_are_rejected(changed: dict[str, float], message: str) -> None:
    with pytest.raises(Sam2EdgeError, match=message):
        check_tolerances(changed)
