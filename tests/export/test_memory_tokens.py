"""Memory attention over some of each memory's tokens: the graph, the bundle and what runs it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Sam2VideoModel

from sam2_edge import Bundle, BundleError, ExportError, Prompt, VideoTracker, load_bundle
from sam2_edge.bundle.contract import PARITY_TOLERANCE, Graph, graph_specs
from sam2_edge.calibration.frames import collect_frames
from sam2_edge.calibration.recording import record_inputs
from sam2_edge.compat.model import open_model
from sam2_edge.compat.video.predictor import SAM2VideoPredictor
from sam2_edge.evaluation.bench.flops import graph_flops
from sam2_edge.evaluation.clips import PromptedClip
from sam2_edge.evaluation.delegating import DelegatingBackend
from sam2_edge.evaluation.pytorch import TorchBackend
from sam2_edge.evaluation.verify.compare import verify
from sam2_edge.evaluation.verify.references import open_reference
from sam2_edge.export.pipeline import check_memory_tokens, export_bundle
from sam2_edge.export.precision import ExportOptions
from sam2_edge.export.validate import example_feeds
from sam2_edge.models.graphs.memory_attention import MemoryAttention
from sam2_edge.models.variants import geometry_of
from sam2_edge.runtime.backends import open_backend
from sam2_edge.runtime.backends.base import Tensor as RunTensor
from sam2_edge.runtime.memory.token_selection import select_cells
from sam2_edge.runtime.results import full_size
from tests.helpers.attention import inputs
from tests.helpers.cli import run
from tests.helpers.clips import Clip
from tests.helpers.models import frames_of_a_clip, loaded

CELLS = 64
"""Of a memory of the small model."""

FEW = 24
CLICK = (34, 38)


@pytest.fixture(scope="module")
def few_bundle(small_model: Sam2VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    target = tmp_path_factory.mktemp("bundles") / "few"
    return export_bundle(
        loaded(small_model), target, ExportOptions(memory_tokens=FEW, memory_rounding="none")
    )


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
        key = torch.cat([key, self._project(attention.k_proj, pointer_keyed)], dim=1)
        scores = attention.scaling * query @ key.transpose(1, 2)
        scores[..., : self.kept.shape[1]].masked_fill_(~self.kept[:, None], -math.inf)
        mean = scores.softmax(dim=-1) @ values
        return attention.o_proj(attention.v_proj(mean))


@torch.inference_mode()
@pytest.mark.parametrize("count", [1, FEW, CELLS - 1])
def test_the_result_is_attention_restricted_to_the_cells(
    small_model: Sam2VideoModel, count: int
) -> None:
    given, cells = inputs(small_model, 3, 2), some_cells(3, 2, count)
    masked = Masked(small_model).eval()
    kept = torch.zeros(3, 2, CELLS, dtype=torch.bool).scatter(2, cells.long(), value=True)
    masked.kept = kept.transpose(0, 1).flatten(1)

    got = MemoryAttention(small_model).eval()(*given, cells)

    torch.testing.assert_close(got, masked(*given), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_all_cells_in_any_order_give_the_exact_result_and_most_come_close(
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
    assert error(CELLS - 1) < error(FEW) < error(8)


@pytest.mark.parametrize(("memories", "objects"), [(1, 1), (2, 3), (7, 1), (10, 4)])
@torch.inference_mode()
def test_the_graph_gives_what_the_module_gives(
    small_model: Sam2VideoModel, few_bundle: Bundle, memories: int, objects: int
) -> None:
    given = (*inputs(small_model, memories, objects), some_cells(memories, objects, FEW))
    session = ort.InferenceSession(few_bundle.graph_path(Graph.MEMORY_ATTENTION))
    names = [value.name for value in session.get_inputs()]
    assert names[-1] == "memory_cells"

    feeds = {name: tensor.contiguous().numpy() for name, tensor in zip(names, given, strict=True)}
    (got,) = session.run(None, feeds)

    want = MemoryAttention(small_model).eval()(*given)
    torch.testing.assert_close(torch.from_numpy(got), want, atol=PARITY_TOLERANCE["fp32"], rtol=0)


def test_every_memory_costs_the_share_of_its_tokens(few_bundle: Bundle, small_bundle) -> None:
    growth = []
    for bundle in (small_bundle, few_bundle):
        path = bundle.graph_path(Graph.MEMORY_ATTENTION)
        counts = [graph_flops(path, {"M": m, "P": 1, "B": 1}) for m in (1, 7)]
        growth.append(counts[1] - counts[0])
    assert growth[1] == pytest.approx(growth[0] * FEW / CELLS)


def test_the_manifest_tells_how_many_tokens_and_older_ones_mean_all(
    few_bundle: Bundle, small_bundle: Bundle, tmp_path: Path
) -> None:
    assert few_bundle.manifest.memory.tokens == FEW
    assert few_bundle.manifest.geometry.memory_tokens == FEW
    assert load_bundle(few_bundle.path).manifest == few_bundle.manifest
    older = manifest_without_tokens(small_bundle, tmp_path / "older")
    assert load_bundle(older).manifest.geometry.memory_tokens is None
    with pytest.raises(BundleError, match="inputs of memory_attention do not match"):
        load_bundle(manifest_without_tokens(few_bundle, tmp_path / "wrong"))


def manifest_without_tokens(bundle: Bundle, target: Path) -> Path:
    shutil.copytree(bundle.path, target)
    manifest = json.loads((target / "manifest.json").read_text())
    del manifest["memory"]["tokens"]
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


@pytest.mark.parametrize("change", [{"tokens": CELLS}, {"tokens": 0}])
def test_a_manifest_that_cannot_be_is_refused(
    few_bundle: Bundle, change: dict[str, int], tmp_path: Path
) -> None:
    shutil.copytree(few_bundle.path, tmp_path / "b")
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    manifest["memory"] |= change
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="memory.*export the bundle again"):
        load_bundle(tmp_path / "b")


class Watched(DelegatingBackend):
    """Keeps the cells and ages that memory attention was given last."""

    def run(self, graph: Graph, inputs: Mapping[str, RunTensor]) -> dict[str, RunTensor]:
        if graph is Graph.MEMORY_ATTENTION:
            self.cells = np.array(inputs["memory_cells"])
            self.ages = np.array(inputs["memory_age"])
        return super().run(graph, inputs)


def test_the_tracker_hands_over_the_cells_of_every_frame(few_bundle: Bundle, clip: Clip) -> None:
    backend = Watched(open_backend(few_bundle, "cpu", threads=1))
    tracker = VideoTracker(few_bundle, backend=backend)
    seen: list[dict[int, NDArray[np.int32]]] = []
    ids = (1, 2)
    for index, frame in enumerate(clip.frames[:10]):
        result = tracker.track(frame)
        if index == 0:
            tracker.prompt(1, points=[CLICK])
            tracker.prompt(2, box=(70, 60, 110, 100))
        if index == 4:
            tracker.prompt(1, points=[CLICK, (2, 2)], labels=[1, 0])
        result = tracker.result()
        geometry = few_bundle.manifest.geometry
        seen.append({i: select_cells(result[i].logits[None], geometry)[0] for i in ids})
        for object_id in ids:
            result[object_id].logits[:] = 5  # they are the user's
        if index == 0:
            continue
        if backend.cells.shape[1] < len(ids):
            continue  # the refined object was run alone
        for column, object_id in enumerate(ids):
            for age, cells in zip(backend.ages[:, column], backend.cells[:, column], strict=True):
                frame_then = 0 if age == 0 else index - age
                np.testing.assert_array_equal(cells, seen[frame_then][object_id])
    assert backend.ages[:, 0].tolist().count(0) == 1
    assert len(backend.ages) == 7
    assert len({tuple(c) for c in backend.cells.reshape(-1, FEW)}) > 4  # the masks move


def test_a_clip_is_tracked_as_in_pytorch(
    small_model: Sam2VideoModel, few_bundle: Bundle, clip: Clip
) -> None:
    torch_backend = TorchBackend(small_model, few_bundle.manifest.memory)
    assert torch_backend.geometry == few_bundle.manifest.geometry
    trackers = [
        VideoTracker(few_bundle, threads=1),
        VideoTracker(few_bundle, backend=torch_backend),
    ]
    for index, frame in enumerate(clip.frames[:9]):
        given = [Prompt(1, points=[CLICK])] if index == 0 else []
        logits = [tracker.track(frame, given)[1].logits for tracker in trackers]
        np.testing.assert_allclose(*logits, rtol=0, atol=PARITY_TOLERANCE["fp32"])


def test_the_api_of_the_original_tracks_alike(
    few_bundle: Bundle, clip: Clip, clip_folder: Path
) -> None:
    predictor = SAM2VideoPredictor(
        open_model(few_bundle, "cpu"),
        binarize_mask_from_pts_for_mem_enc=True,
        dynamic_multimask_via_stability=True,
    )
    tracker = VideoTracker(few_bundle, threads=1, clip_frames=6)
    with predictor.init_state(clip_folder) as state:
        predictor.add_new_points_or_box(state, 0, 1, points=[CLICK], labels=[1])
        for index, _ids, got in predictor.propagate_in_video(state):
            given = [Prompt(1, points=[CLICK])] if index == 0 else []
            found = tracker.track(clip.frames[index], given)[1]
            wanted = full_size(found.logits, found.frame_size)
            np.testing.assert_allclose(got[0, 0], wanted, rtol=0, atol=1e-3)


def test_calibration_records_the_cells(few_bundle: Bundle, tmp_path: Path) -> None:
    size = few_bundle.manifest.image_size
    frames = collect_frames(frames_of_a_clip(tmp_path / "data"), tmp_path, size=size, count=16)
    recording = record_inputs(few_bundle, frames, tmp_path)
    recorded = list(recording.inputs(Graph.MEMORY_ATTENTION))
    assert len(recorded) >= 3
    for feeds in recorded:
        assert feeds["memory_cells"].shape == (*feeds["memory_age"].shape, FEW)


def test_what_some_tokens_cost_is_verified_against_the_bundle_that_sees_all(
    few_bundle: Bundle, small_bundle: Bundle, clip: Clip
) -> None:
    reference = open_reference(few_bundle, str(small_bundle.path))
    pictures = clip.frames[:6]
    numbers, prompts = tuple(range(6)), (Prompt(1, points=[CLICK]),)
    prompted_clip = PromptedClip("clip", numbers, tuple(pictures), prompts)
    found = verify(few_bundle, open_backend(few_bundle, "cpu"), reference, prompted_clip)
    relative = {graph: worst.relative_l2 for (graph, _), worst in found.graphs.items()}
    assert relative[Graph.IMAGE_ENCODER] < 1e-4 < relative[Graph.MEMORY_ATTENTION]


def test_a_reference_that_sees_fewer_tokens_is_refused(
    few_bundle: Bundle, small_bundle: Bundle
) -> None:
    with pytest.raises(BundleError, match="memory_tokens=24.* same number of memory tokens"):
        open_reference(small_bundle, str(few_bundle.path))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (0, "0 memory tokens; .* 8 x 8 tokens: give 1 to 63"),
        (CELLS, "64 memory tokens; .* give 1 to 63, or leave it out"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    small_model: Sam2VideoModel, tokens: int, message: str, tmp_path: Path
) -> None:
    geometry = geometry_of(small_model.config)
    with pytest.raises(ExportError, match=message):
        check_memory_tokens(replace(geometry, memory_tokens=tokens))
    with pytest.raises(ExportError, match=message):
        export_bundle(loaded(small_model), tmp_path / "b", ExportOptions(memory_tokens=tokens))
    assert not list(tmp_path.iterdir())


def test_the_option_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    few_bundle: Bundle,
    tmp_path: Path,
) -> None:
    output = ["--output", tmp_path / "out"]
    assert run(monkeypatch, "export", "nano", *output, "--memory-tokens", "256") == 1
    assert "give 1 to 255" in capsys.readouterr().err
    assert run(monkeypatch, "inspect", few_bundle.path) == 0
    assert "24 tokens of each attended to" in capsys.readouterr().out


def test_examples_name_cells_that_there_are(few_bundle: Bundle) -> None:
    geometry = few_bundle.manifest.geometry
    for feeds in example_feeds(graph_specs(geometry)[Graph.MEMORY_ATTENTION], geometry):
        assert 0 <= feeds["memory_cells"].min() <= feeds["memory_cells"].max() < CELLS
