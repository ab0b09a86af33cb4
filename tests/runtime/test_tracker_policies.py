"""The tracker and its memory bank under every memory policy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_edge import (
    Bundle,
    DistractorMemory,
    FrameResult,
    MotionMemory,
    OriginalMemory,
    Prompt,
    Sam2EdgeError,
    VideoTracker,
)
from sam2_edge.bundle.contract import Graph
from sam2_edge.evaluation.metrics import region_similarity
from sam2_edge.runtime.backends import Backend, Tensor, open_backend
from sam2_edge.runtime.backends.ort_cpu import OnnxRuntimeCpu
from sam2_edge.runtime.memory.bank import MemoryBank
from sam2_edge.runtime.memory.policies import MaskCandidates, Outcome
from sam2_edge.runtime.memory.slots import Keep, KeptFrames, RecentFrames, SlotPolicy
from sam2_edge.synthetic import center_click
from sam2_edge.synthetic import clip as synthetic_clip
from tests.helpers.clips import Clip
from tests.helpers.memory import GEOMETRY, SPAN, memories, store

CLICK = Prompt(1, points=[(34, 38)])
OTHER = Prompt(2, box=(70, 70, 120, 120))
EVERY = ["original", "motion", "distractor"]


@pytest.fixture(scope="module")
def backend(small_bundle: Bundle) -> Backend:
    return open_backend(small_bundle)


TIMED = ((), (Keep.RECENT,), (Keep.TRANSIENT,))
KINDS = [(*timed, *anchor) for timed in TIMED for anchor in ((), (Keep.ANCHOR,))]
"""All ways to keep a frame's memory."""

STEPS = st.lists(
    st.dictionaries(st.integers(1, 3), st.sampled_from(["prompt", "skip", *KINDS])),
    min_size=1,
    max_size=30,
)


@settings(max_examples=100, deadline=None)
@given(steps=STEPS, recent=st.integers(1, 3), anchors=st.integers(1, 3), cap=st.integers(1, 2))
def test_any_history_keeps_the_latest_memories_of_each_kind(
    backend: Backend, steps: list[dict[int, Any]], recent: int, anchors: int, cap: int
) -> None:
    """Memories are identified by value, and compared with a naive list of all memories."""
    bank = MemoryBank(
        backend, GEOMETRY, max_cond_frames=cap, slot_policy=KeptFrames(recent, anchors)
    )
    conditioning: dict[int, list[int]] = {}
    kept: dict[int, list[tuple[int, Keep]]] = {}
    for frame, actions in enumerate(steps, 1):
        for object_id, action in actions.items():
            if action == "skip" or (action != "prompt" and object_id not in conditioning):
                continue
            if action == "prompt":
                conditioning.setdefault(object_id, []).append(frame)
                kept.setdefault(object_id, [])
                store(bank, frame, [object_id], [float(frame)], conditioning=True)
                if len(conditioning[object_id]) > cap:  # the first becomes an ordinary one
                    gone = conditioning[object_id].pop(0)
                    kept[object_id].append((gone, Keep.RECENT))
            else:
                side = GEOMETRY.embedding_size
                rows, memory = bank.take_rows(1)
                memory[:] = np.full((1, 4, side, side), frame, np.float32)
                pointer = np.full((1, 8), frame, np.float32)
                bank.write(frame, [object_id], rows, pointer, conditioning=False, keep=[action])
                kept[object_id] += [(frame, kind) for kind in action]
        order = iter(ids := bank.in_batches(frame + 1, list(conditioning)))
        for batch in bank.read(frame + 1, ids, span=SPAN):
            assert len(batch.memory_rows) <= cap + recent + anchors
            assert batch.memory_age.shape == batch.memory_rows.shape
            for column, object_id in zip(range(batch.memory_age.shape[1]), order, strict=False):
                values = memories(batch)[:, column].astype(int).tolist()
                found = sorted(zip(batch.memory_age[:, column].tolist(), values, strict=True))
                assert found == _expected(conditioning[object_id], kept[object_id], recent, anchors)


def _expected(
    conditioning: list[int], kept: list[tuple[int, Keep]], recent: int, anchors: int
) -> list[tuple[int, int]]:
    anchored = sorted(frame for frame, kind in kept if kind is Keep.ANCHOR)[-anchors:]
    timed = sorted(frame for frame, kind in kept if kind is Keep.RECENT)
    passing = sorted(frame for frame, kind in kept if kind is Keep.TRANSIENT)
    if passing and passing[-1] > max(timed, default=0):
        timed.append(passing[-1])
    ages = list(enumerate(timed[::-1][:recent], start=1))
    return sorted([(0, frame) for frame in [*conditioning, *anchored]] + ages)


def run(tracker: VideoTracker, clip: Clip, frames: int = 12) -> list[FrameResult]:
    return [
        tracker.track(frame, [CLICK, OTHER] if index == 0 else [])
        for index, frame in enumerate(clip.frames[:frames])
    ]


class Counting(OnnxRuntimeCpu):
    """Counts graphs and downloads, and keeps the decoder's latest output."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.downloads, self.graphs = 0, []
        self.decoded: Mapping[str, Tensor] = {}

    def run(
        self,
        graph: Graph,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        self.graphs.append(graph)
        outputs = super().run(graph, inputs, outputs)
        if graph is Graph.MASK_DECODER:
            self.decoded = {name: np.array(value) for name, value in outputs.items()}
        return outputs

    def download(self, tensor: Tensor) -> Any:
        self.downloads += 1
        return super().download(tensor)


def test_the_original_policy_is_the_default_and_downloads_only_results(
    small_bundle: Bundle, clip: Clip
) -> None:
    counting = Counting(small_bundle)
    by_default, named, given = (
        VideoTracker(small_bundle, backend=counting),
        VideoTracker(small_bundle, memory_policy="original"),
        VideoTracker(small_bundle, memory_policy=OriginalMemory()),
    )
    for a, b, c in zip(*(run(t, clip) for t in (by_default, named, given)), strict=True):
        for object_id in (1, 2):
            np.testing.assert_array_equal(a[object_id].logits, b[object_id].logits)
            np.testing.assert_array_equal(a[object_id].logits, c[object_id].logits)
    # Mask, IoU, score and pointer: per object on the first frame, then per batch.
    assert counting.downloads == 4 * (2 + 11)
    assert counting.graphs.count(Graph.MEMORY_ENCODER) == 2 + 10


SIX = RecentFrames(6)


@dataclass(frozen=True)
class Fixed:
    """A custom policy that always chooses the same mask and keeps it in the same way."""

    mask: Any = 1
    kept: Any = (Keep.RECENT,)
    rule: SlotPolicy = SIX
    name: str = "fixed"

    def slots(self, _trained: int, _requested: int | None) -> SlotPolicy:
        return self.rule

    def follow(self) -> Fixed:
        return self

    def choose(self, _candidates: MaskCandidates) -> int:
        return self.mask

    def keep(self, _outcome: Outcome) -> Collection[Keep]:
        return self.kept


@pytest.mark.parametrize("index", [1, 2, 3])
def test_the_mask_chosen_by_a_policy_is_the_result_and_is_remembered(
    small_bundle: Bundle, clip: Clip, index: int
) -> None:
    backend = Counting(small_bundle)
    tracker = VideoTracker(small_bundle, backend=backend, memory_policy=Fixed(index))
    for frame in (0, 1):
        result = tracker.track(clip.frames[frame], [CLICK, OTHER] if frame == 0 else [])
    decoded = backend.decoded
    assert (decoded["object_score"] > 0).all()
    tracker.track(clip.frames[2])
    for row, object_id in enumerate((1, 2)):
        np.testing.assert_array_equal(result[object_id].logits, decoded["masks"][row, index])
        assert result[object_id].iou == decoded["iou"][row, index]
        _, pointer = tracker.latest_memory(object_id)
        np.testing.assert_array_equal(pointer, decoded["mask_pointers"][row, index])


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Fixed(mask=0), "policy fixed chose mask 0; it may choose 1, 2, 3"),
        (Fixed(mask=None), "policy fixed chose mask None"),
        (Fixed(kept=None), "policy fixed keeps a memory as None; it may return a collection of"),
        (Fixed(kept=["recent"]), "policy fixed keeps a memory as .'recent'."),
        (Fixed(kept=[Keep.RECENT] * 2), "kept as Keep.RECENT, for which RecentFrames.* no slot"),
    ],
)
def test_an_invalid_decision_of_a_policy_is_an_error(
    small_bundle: Bundle, clip: Clip, policy: Fixed, message: str
) -> None:
    tracker = VideoTracker(small_bundle, memory_policy=policy, max_cond_frames=1)
    with pytest.raises(Sam2EdgeError, match=message):
        run(tracker, clip)


def test_conflicting_options_are_refused(small_bundle: Bundle) -> None:
    VideoTracker(small_bundle, memory_policy="motion", recent_memories=3)
    for options, message in (
        ({"memory_policy": "nearest"}, "memory_policy is 'nearest'; give one of original, motion"),
        ({"memory_policy": "distractor", "recent_memories": 3}, "recent_memories is 3, but .* out"),
        ({"memory_policy": DistractorMemory(anchors=4)}, "keeps 7 unprompted .* trained with 6"),
        ({"memory_policy": Fixed(rule=KeptFrames(7))}, "policy fixed keeps 7"),
    ):
        with pytest.raises(Sam2EdgeError, match=message):
            VideoTracker(small_bundle, **options)


@pytest.mark.parametrize("policy", EVERY)
@pytest.mark.parametrize("remember_absent", [True, False])
def test_memory_stays_bounded_and_ages_in_range_under_any_prompts(
    small_bundle: Bundle, clip: Clip, policy: str, remember_absent: bool
) -> None:
    tracker = VideoTracker(
        small_bundle, memory_policy=policy, max_cond_frames=2, remember_absent=remember_absent
    )
    black = np.zeros_like(clip.frames[0])
    for index in range(40):
        prompts = {0: [CLICK, OTHER], 17: [CLICK], 18: [CLICK], 19: [OTHER], 25: [OTHER]}
        frame = black if index % 7 == 6 else clip.frames[index % 24]
        tracker.track(frame, prompts.get(index, []))
        if index == 9:
            tracker.prompt(1, points=[(40, 50), (100, 20)], labels=[1, 0])
        for entry in tracker._bank._objects.values():
            assert len(entry.memories) <= 2 + 6
            assert any(slot.conditioning for slot in entry.memories)
        for batch in tracker._bank.read(index + 1, list(tracker._bank._objects), span=SPAN):
            assert batch.memory.shape[0] <= 2 * 2 * (2 + 6 + 1)
            assert ((batch.memory_age >= 0) & (batch.memory_age <= 6)).all()
    assert (
        len(tracker._policies.objects)
        == len(tracker._policies._outcomes)
        == 2 * (policy != "original")
    )
    tracker.remove(1)
    assert 1 not in tracker._policies.objects
    tracker.reset()
    assert not tracker._policies.objects


@pytest.mark.parametrize("policy", ["motion", "distractor"])
def test_objects_are_independent_under_any_policy(
    full_bundle: Bundle, clip: Clip, policy: str
) -> None:
    alone, together = (VideoTracker(full_bundle, memory_policy=policy) for _ in range(2))
    for index, frame in enumerate(clip.frames[:14]):
        one = alone.track(frame, [CLICK] if index == 0 else [])
        two = together.track(frame, {0: [CLICK], 3: [OTHER]}.get(index, []))
        np.testing.assert_allclose(one[1].logits, two[1].logits, atol=1e-4)


@pytest.mark.parametrize("policy", ["motion", "distractor"])
def test_modified_results_do_not_reach_a_policy(
    small_bundle: Bundle, clip: Clip, policy: str
) -> None:
    careful, careless = (VideoTracker(small_bundle, memory_policy=policy) for _ in range(2))
    for index, frame in enumerate(clip.frames[:10]):
        prompts = [CLICK] if index == 0 else []
        expected, got = careful.track(frame, prompts), careless.track(frame, prompts)
        np.testing.assert_array_equal(got[1].logits, expected[1].logits)
        got[1].logits[:] = 99


def test_frames_that_motion_does_not_trust_store_a_pointer_but_no_memory(
    small_bundle: Bundle, clip: Clip
) -> None:
    backend = Counting(small_bundle)
    policy = MotionMemory(min_iou=1.0)  # trusts nothing
    tracker = VideoTracker(small_bundle, backend=backend, memory_policy=policy)
    run(tracker, clip, 6)
    for entry in tracker._bank._objects.values():
        assert (len(entry.memories), len(entry.pointers)) == (1, 5)
    assert backend.graphs.count(Graph.MEMORY_ENCODER) == 2  # one per prompt


@pytest.mark.parametrize("policy", EVERY)
def test_nano_tracks_a_clip_under_every_policy(policy: str) -> None:
    drawn = synthetic_clip(62, frames=24, objects=1, photographs=False)
    tracker = VideoTracker("nano", threads=1, memory_policy=policy)
    found = []
    for index, frame in enumerate(drawn.frames):
        prompts = [Prompt(1, points=[center_click(drawn.mask(0, 1))])] if index == 0 else []
        found.append(region_similarity(tracker.track(frame, prompts)[1].mask, drawn.mask(index, 1)))
    assert np.mean(found) > 0.8
