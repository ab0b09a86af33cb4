"""Memory attention over some of each memory's tokens: the graph, the bundle and what runs it."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import onnxruntime as ort
import pytest
import torch
from torch import Tensor
from transformers import Sam2VideoModel

from sam2_edge import Bundle, BundleError, ExportError, Prompt, load_bundle
from sam2_edge.bundle.contract import PARITY_TOLERANCE, Graph, GraphTarget, graph_specs
from sam2_edge.calibration.frames import collect_frames
from sam2_edge.calibration.recording import record_inputs
from sam2_edge.evaluation.bench.flops import graph_flops
from sam2_edge.evaluation.clips import PromptedClip
from sam2_edge.evaluation.verify.compare import verify
from sam2_edge.evaluation.verify.references import open_reference
from sam2_edge.export.pipeline import check_memory_tokens, export_bundle
from sam2_edge.export.precision import ExportOptions
from sam2_edge.export.validate import example_feeds
from sam2_edge.models.families import geometry_of
from sam2_edge.models.graphs.memory_attention import MemoryAttention
from sam2_edge.runtime.backends import open_backend
from tests.helpers.attention import inputs
from tests.helpers.cli import run
from tests.helpers.clips import Clip
from tests.helpers.models import MEMORY_TOKENS, frames_of_a_clip, loaded

CELLS = 64
"""Of a memory of the small model."""


def some_cells(memories: int, objects: int, count: int) -> Tensor:
    """Other cells for every memory of every object, in no order: [M,B,N] int32."""
    generator = torch.Generator().manual_seed(count)
    order = torch.rand((memories, objects, CELLS), generator=generator).argsort(dim=-1)
    return order[..., :count].to(torch.int32)


class Masked(MemoryAttention):
    """All memory tokens, of which those that are not kept weigh nothing."""

    kept: Tensor

    def _cross_attention(
        self, attention: Any, x: Tensor, keyed: Any, pointer_keyed: Tensor, values: Tensor
    ) -> Tensor:
        query = self._rotate(self._project(attention.q_proj, x))
        key = self._rotate(self._project(attention.k_proj, keyed[0])).flatten(1, 2)
        key = torch.cat([key, self._project(attention.k_proj, pointer_keyed)], dim=1)[:, None]
        scores = attention.scaling * query @ key.transpose(2, 3)
        scores[..., : self.kept.shape[1]].masked_fill_(~self.kept[:, None, None], -math.inf)
        mean = scores.softmax(dim=-1) @ values
        return attention.o_proj(attention.v_proj(mean))


@torch.inference_mode()
@pytest.mark.parametrize("target", get_args(GraphTarget))
@pytest.mark.parametrize("count", [1, MEMORY_TOKENS, CELLS - 1])
def test_attention_is_restricted_to_the_given_cells(
    small_model: Sam2VideoModel, count: int, target: GraphTarget
) -> None:
    given, cells = inputs(small_model, 3, 2), some_cells(3, 2, count)
    masked = Masked(small_model).eval()
    kept = torch.zeros(3, 2, CELLS, dtype=torch.bool).scatter(2, cells.long(), value=True)
    masked.kept = kept.transpose(0, 1).flatten(1)

    got = MemoryAttention(small_model, target=target).eval()(*given, cells)

    torch.testing.assert_close(got, masked(*given), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_all_cells_in_any_order_give_the_exact_result_and_fewer_an_approximation(
    small_model: Sam2VideoModel,
) -> None:
    given, attention = inputs(small_model, 7, 2), MemoryAttention(small_model).eval()
    exact = attention(*given)

    def error(count: int) -> float:
        difference = attention(*given, some_cells(7, 2, count)) - exact
        return float(difference.norm() / exact.norm())

    assert error(CELLS) < 1e-5
    # The random model attends sharply: of a query whose best key is left out, all is another.
    assert error(CELLS - 1) < 0.05
    assert error(CELLS - 1) < error(MEMORY_TOKENS) < error(8)


@pytest.mark.parametrize(("memories", "objects"), [(1, 1), (2, 3), (7, 1), (10, 4)])
@torch.inference_mode()
def test_the_graph_equals_the_module(
    small_model: Sam2VideoModel, tokens_bundle: Bundle, memories: int, objects: int
) -> None:
    given = (*inputs(small_model, memories, objects), some_cells(memories, objects, MEMORY_TOKENS))
    session = ort.InferenceSession(tokens_bundle.graph_path(Graph.MEMORY_ATTENTION))
    names = [value.name for value in session.get_inputs()]
    assert names[-1] == "memory_cells"

    feeds = {name: tensor.contiguous().numpy() for name, tensor in zip(names, given, strict=True)}
    (got,) = session.run(None, feeds)

    want = MemoryAttention(small_model).eval()(*given)
    torch.testing.assert_close(torch.from_numpy(got), want, atol=PARITY_TOLERANCE["fp32"], rtol=0)


def test_the_cost_of_a_memory_is_proportional_to_its_tokens(
    tokens_bundle: Bundle, small_bundle
) -> None:
    growth = []
    for bundle in (small_bundle, tokens_bundle):
        path = bundle.graph_path(Graph.MEMORY_ATTENTION)
        counts = [graph_flops(path, {"M": m, "P": 1, "B": 1}) for m in (1, 7)]
        growth.append(counts[1] - counts[0])
    assert growth[1] == pytest.approx(growth[0] * MEMORY_TOKENS / CELLS)


def test_the_manifest_records_the_token_count_and_none_means_all(
    tokens_bundle: Bundle, small_bundle: Bundle, tmp_path: Path
) -> None:
    assert tokens_bundle.manifest.memory.tokens == MEMORY_TOKENS
    assert tokens_bundle.manifest.geometry.memory_tokens == MEMORY_TOKENS
    assert load_bundle(tokens_bundle.path).manifest == tokens_bundle.manifest
    older = manifest_without_tokens(small_bundle, tmp_path / "older")
    assert load_bundle(older).manifest.geometry.memory_tokens is None
    with pytest.raises(BundleError, match="inputs of memory_attention do not match"):
        load_bundle(manifest_without_tokens(tokens_bundle, tmp_path / "wrong"))


def manifest_without_tokens(bundle: Bundle, target: Path) -> Path:
    shutil.copytree(bundle.path, target)
    manifest = json.loads((target / "manifest.json").read_text())
    del manifest["memory"]["tokens"]
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


@pytest.mark.parametrize("change", [{"tokens": CELLS}, {"tokens": 0}])
def test_an_impossible_token_count_in_the_manifest_is_refused(
    tokens_bundle: Bundle, change: dict[str, int], tmp_path: Path
) -> None:
    shutil.copytree(tokens_bundle.path, tmp_path / "b")
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    manifest["memory"] |= change
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="memory.*export the bundle again"):
        load_bundle(tmp_path / "b")


def test_calibration_records_the_cells(tokens_bundle: Bundle, tmp_path: Path) -> None:
    size = tokens_bundle.manifest.image_size
    frames = collect_frames(frames_of_a_clip(tmp_path / "data"), tmp_path, size=size, count=16)
    recording = record_inputs(tokens_bundle, frames, tmp_path)
    recorded = list(recording.inputs(Graph.MEMORY_ATTENTION))
    assert len(recorded) >= 3
    for feeds in recorded:
        assert feeds["memory_cells"].shape == (*feeds["memory_age"].shape, MEMORY_TOKENS)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (0, "0 memory tokens; .* 8 x 8 tokens: give 1 to 63"),
        (CELLS, "64 memory tokens; .* give 1 to 63, or leave it out"),
    ],
)
def test_impossible_token_counts_are_refused(
    small_model: Sam2VideoModel, tokens: int, message: str, tmp_path: Path
) -> None:
    geometry = geometry_of(small_model.config)
    with pytest.raises(ExportError, match=message):
        check_memory_tokens(replace(geometry, memory_tokens=tokens))
    with pytest.raises(ExportError, match=message):
        export_bundle(loaded(small_model), tmp_path / "b", ExportOptions(memory_tokens=tokens))
    assert not list(tmp_path.iterdir())


def test_the_commands_check_and_show_memory_tokens(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tokens_bundle: Bundle,
    tmp_path: Path,
) -> None:
    output = ["--output", tmp_path / "out"]
    assert run(monkeypatch, "export", "nano", *output, "--memory-tokens", "256") == 1
    assert "give 1 to 255" in capsys.readouterr().err
    assert run(monkeypatch, "inspect", tokens_bundle.path) == 0
    assert "24 tokens of each attended to" in capsys.readouterr().out


def test_example_inputs_name_existing_cells(tokens_bundle: Bundle) -> None:
    geometry = tokens_bundle.manifest.geometry
    for feeds in example_feeds(graph_specs(geometry)[Graph.MEMORY_ATTENTION], geometry):
        assert 0 <= feeds["memory_cells"].min() <= feeds["memory_cells"].max() < CELLS


def test_verify_compares_with_a_bundle_that_sees_all_tokens(
    tokens_bundle: Bundle, small_bundle: Bundle, clip: Clip
) -> None:
    reference = open_reference(tokens_bundle, str(small_bundle.path))
    pictures = clip.frames[:6]
    numbers, prompts = tuple(range(6)), (Prompt(1, points=[(34, 38)]),)
    prompted_clip = PromptedClip("clip", numbers, tuple(pictures), prompts)
    found = verify(tokens_bundle, open_backend(tokens_bundle, "cpu"), reference, prompted_clip)
    relative = {graph: worst.relative_l2 for (graph, _), worst in found.graphs.items()}
    assert relative[Graph.IMAGE_ENCODER] < 1e-4 < relative[Graph.MEMORY_ATTENTION]


def test_a_reference_that_sees_fewer_tokens_is_refused(
    tokens_bundle: Bundle, small_bundle: Bundle
) -> None:
    with pytest.raises(BundleError, match="memory_tokens=24.* same number of memory tokens"):
        open_reference(small_bundle, str(tokens_bundle.path))
