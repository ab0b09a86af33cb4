"""Memory attention over averages of 2 x 2 memory tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Sam2VideoModel

from sam2_edge import Prompt, VideoTracker
from sam2_edge.bundle.contract import Graph
from sam2_edge.evaluation.bench.flops import graph_flops
from sam2_edge.export.pipeline import export_bundle
from sam2_edge.models.graphs.memory_attention import MemoryAttention
from tests.helpers.attention import inputs
from tests.helpers.cli import run
from tests.helpers.clips import Clip
from tests.helpers.models import loaded


class Repeated(MemoryAttention):
    """Every average stands four times among the keys, at its own logit: what is to come out."""

    def _pooled(self, tokens: Tensor) -> Tensor:
        self.pooling = 2
        pooled = super()._pooled(tokens)
        self.pooling = 1  # nothing is raised
        return pooled.repeat_interleave(4, dim=1)


@torch.inference_mode()
def test_an_average_counts_as_often_as_the_tokens_in_it(small_model: Sam2VideoModel) -> None:
    given = inputs(small_model, 3, 2)
    pooled = MemoryAttention(small_model, pooling=2).eval()(*given)
    repeated = Repeated(small_model).eval()(*given)
    whole = MemoryAttention(small_model).eval()(*given)
    torch.testing.assert_close(pooled, repeated, atol=1e-5, rtol=1e-5)
    assert float((pooled - whole).abs().max()) > 1e-3


@torch.inference_mode()
def test_averages_are_of_neighbours_in_the_picture(small_model: Sam2VideoModel) -> None:
    tokens = torch.arange(2 * 16.0).reshape(1, 2, 16, 1)  # two memories of 4 x 4
    pooled = MemoryAttention(small_model, pooling=2)._pooled(tokens)
    assert pooled[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5, 18.5, 20.5, 26.5, 28.5]


def test_a_pooled_bundle_tracks_with_fewer_operations(
    small_model: Sam2VideoModel, small_bundle, clip: Clip, tmp_path: Path
) -> None:
    pooled = export_bundle(loaded(small_model), tmp_path / "pooled", memory_pooling=2)

    assert pooled.manifest.memory.pooling == 2
    assert small_bundle.manifest.memory.pooling == 1
    growth = []
    for bundle in (small_bundle, pooled):
        path = bundle.graph_path(Graph.MEMORY_ATTENTION)
        counts = [graph_flops(path, {"M": m, "P": 1, "B": 1, "N": 1}) for m in (1, 7)]
        growth.append(counts[1] - counts[0])
    assert growth[1] < 0.6 * growth[0]  # projecting the keys stays
    tracker = VideoTracker(pooled, threads=1)
    for index, frame in enumerate(clip.frames[:4]):
        result = tracker.track(frame, [Prompt(1, points=[(34, 38)])] if index == 0 else [])
    assert result[1].logits.shape == (32, 32)


def test_the_option_is_refused_where_a_bundle_is_the_source(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    small_bundle,
    tmp_path: Path,
) -> None:
    options = ["--target", "tensorrt-rtx", "--compute-capability", "8.6", "--memory-pooling", "2"]
    output = ["--output", tmp_path / "out"]
    assert run(monkeypatch, "export", small_bundle.path, *output, *options) == 1
    assert "--memory-pooling" in capsys.readouterr().err
