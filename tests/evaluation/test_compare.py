"""Comparing a bundle with PyTorch and with another bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sam2_edge import Bundle, BundleError, SourceError
from sam2_edge.bundle import load_bundle
from sam2_edge.bundle.contract import Graph
from sam2_edge.bundle.names import BUNDLED
from sam2_edge.evaluation.clips import VERIFY_SEED, PromptedClip, verify_clip
from sam2_edge.evaluation.differences import difference
from sam2_edge.evaluation.verify.compare import Verification, frames_to_compare, verify
from sam2_edge.evaluation.verify.references import Reference, open_reference
from sam2_edge.evaluation.verify.tolerances import tolerances_for
from sam2_edge.runtime.backends import open_backend
from sam2_edge.runtime.sources import FrameRange
from sam2_edge.synthetic import clip
from tests.helpers.faulty import faulty_bundle

FRAMES = 3

WEIGHTED = set(Graph) - {Graph.MASK_BITS}
"""Graphs with weights; the other one runs on GPUs only."""


@pytest.fixture(scope="module")
def prompted(small_bundle: Bundle) -> PromptedClip:
    return verify_clip(None, FrameRange(0, FRAMES), small_bundle.manifest.image_size)


@pytest.fixture(scope="module")
def pytorch(full_bundle: Bundle, model_folder: Path) -> Reference:
    return open_reference(full_bundle, str(model_folder), threads=1)


def compare(
    bundle: Bundle, reference: Reference, prompted: PromptedClip, *swapped: Graph
) -> Verification:
    own = open_backend(bundle, "cpu", threads=1)
    return verify(bundle, own, reference, prompted, swapped=swapped)


def test_a_bundle_agrees_with_pytorch(
    full_bundle: Bundle, pytorch: Reference, prompted: PromptedClip
) -> None:
    found = compare(full_bundle, pytorch, prompted)

    assert {graph for graph, _ in found.graphs} == WEIGHTED
    assert max(worst.relative_l2 for worst in found.graphs.values()) < 1e-4
    assert found.j_and_f > 0.999
    assert found.presence == 1.0
    assert found.first_divergence is None
    for name in ("memory", "pointer"):
        drift = found.drift(name)
        assert drift is not None
        assert 0 < drift < 1e-3
    assert len(found.comparisons) == 2 * FRAMES
    assert found.problems(tolerances_for(full_bundle.manifest, {})) == []


@pytest.mark.parametrize("graph", sorted(WEIGHTED))
def test_a_faulty_graph_is_found_and_swapping_it_fixes_the_loop(
    full_bundle: Bundle, prompted: PromptedClip, tmp_path: Path, graph: Graph
) -> None:
    bad = faulty_bundle(full_bundle, graph, tmp_path)
    reference = open_reference(bad, str(full_bundle.path), threads=1)

    found = compare(bad, reference, prompted)
    fixed = compare(bad, reference, prompted, graph)

    faulty = {g for (g, _), worst in found.graphs.items() if worst.relative_l2 > 1e-6}
    assert faulty == {graph}
    assert any(
        graph.value in problem for problem in found.problems(tolerances_for(bad.manifest, {}))
    )
    assert all(c.j == 1.0 and c.logits == 0.0 for c in fixed.comparisons)
    assert graph not in {g for g, _ in fixed.graphs}


def test_values_that_are_not_finite_exceed_every_tolerance(
    full_bundle: Bundle, pytorch: Reference, prompted: PromptedClip
) -> None:
    found = compare(full_bundle, pytorch, prompted)
    key = next(iter(found.graphs))
    bad = difference(np.array([np.nan, 1.0]), np.array([1.0, 1.0]))
    assert bad is not None
    for worst in (found.graphs[key].worse(bad), bad.worse(found.graphs[key])):
        found.graphs[key] = worst
        tolerances = tolerances_for(full_bundle.manifest, {"graph": 100.0})
        assert len(found.problems(tolerances)) == 1


def test_an_object_of_the_default_clip_disappears_and_returns() -> None:
    drawn = clip(VERIFY_SEED, frames=32, size=128, split="heldout", photographs=False)
    assert drawn.present[0].all()
    assert drawn.present[-1].all()
    assert 4 <= (~drawn.present).sum() <= 16
    with pytest.raises(SourceError, match="out of sight"):
        verify_clip(None, FrameRange(int((~drawn.present).any(axis=1).argmax()), 32), 128)


def test_the_bundled_model_is_found_despite_a_folder_of_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nano").mkdir()
    monkeypatch.chdir(tmp_path)
    reference = open_reference(load_bundle(BUNDLED["nano"]), None, threads=1)
    assert reference.same_weights is True


def test_compared_frames_are_spread_over_the_clip() -> None:
    assert frames_to_compare(range(4)) == {0, 1, 2, 3}
    chosen = sorted(frames_to_compare(range(10, 42)))
    assert (chosen[:2], chosen[-1], len(chosen)) == ([10, 11], 41, 6)


def test_a_reference_with_another_geometry_is_rejected(full_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="another geometry"):
        open_reference(full_bundle, str(BUNDLED["nano"]))


def test_a_missing_source_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        verify_clip(tmp_path / "none.mp4", FrameRange(0, 4), 64)
