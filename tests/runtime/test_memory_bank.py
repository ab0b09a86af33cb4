"""The memory bank against a naive implementation that keeps every frame."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sam2_edge import Bundle
from sam2_edge.runtime.backends import Backend, open_backend
from sam2_edge.runtime.memory.bank import MemoryBank
from sam2_edge.runtime.memory.slots import RecentFrames, closest_frames
from tests.helpers.memory import GEOMETRY, SPAN, store


@pytest.fixture(scope="module")
def backend(small_bundle: Bundle) -> Backend:
    return open_backend(small_bundle)


@dataclass
class Naive:
    """Keeps every frame of one object and selects by the published rule (`sam2_base.py`,
    `_prepare_memory_conditioned_features`), with `limit` prompted frames attended to.
    """

    limit: int
    conditioning: dict[int, float] = field(default_factory=dict)
    others: dict[int, float] = field(default_factory=dict)

    def select(self, frame: int) -> tuple[dict[int, float], dict[int, float]]:
        keep = closest_frames(frame, list(self.conditioning), self.limit)
        chosen = {f: v for f, v in self.conditioning.items() if f in keep}
        rest = {f: v for f, v in self.conditioning.items() if f not in keep}
        return chosen, {**self.others, **rest}

    def memories(self, frame: int) -> set[tuple[int, float]]:
        chosen, rest = self.select(frame)
        recent = {(age, rest[frame - age]) for age in range(1, 7) if frame - age in rest}
        return {(0, value) for value in chosen.values()} | recent

    def pointers(self, frame: int) -> set[tuple[int, float]]:
        chosen, rest = self.select(frame)
        recent = {(age, rest[frame - age]) for age in range(1, 16) if frame - age in rest}
        return {(frame - f, value) for f, value in chosen.items()} | recent


def assert_equals_naive(
    bank: MemoryBank, naive: dict[int, Naive], frame: int, tokens: int | None = None
) -> None:
    seen: list[int] = []
    for ids, batch in bank.read(frame, list(naive), span=SPAN):
        memory, pointers = np.asarray(batch.memory), np.asarray(batch.pointers)
        assert memory.flags.c_contiguous
        assert pointers.flags.c_contiguous
        if tokens is None:
            assert batch.memory_cells is None
        else:  # every memory has cells of its own
            expected = np.repeat(memory[:, :, 0, 0, :1], tokens, axis=2)
            np.testing.assert_array_equal(batch.memory_cells, expected)
        for column, object_id in enumerate(ids):
            ages = batch.memory_age[:, column].tolist()
            values = memory[:, column, 0, 0, 0].tolist()
            assert sorted(zip(ages, values, strict=True)) == sorted(
                naive[object_id].memories(frame)
            )
            ages = np.round(batch.pointer_age[:, column] * (SPAN - 1)).astype(int).tolist()
            values = pointers[:, column, 0].tolist()
            assert sorted(zip(ages, values, strict=True)) == sorted(
                naive[object_id].pointers(frame)
            )
            seen.append(object_id)
    assert sorted(seen) == sorted(naive)


STEPS = st.lists(
    st.dictionaries(st.integers(1, 3), st.sampled_from(["track", "prompt", "skip"])),
    min_size=1,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(
    steps=STEPS,
    limit=st.integers(1, 3),
    tokens=st.sampled_from([None, 3]),
    removals=st.sets(st.tuples(st.integers(0, 39), st.integers(1, 3))),
)
def test_any_history_equals_the_published_rule(
    backend: Backend,
    steps: list[dict[int, str]],
    limit: int,
    tokens: int | None,
    removals: set[tuple[int, int]],
) -> None:
    geometry = replace(GEOMETRY, memory_tokens=tokens)
    bank = MemoryBank(backend, geometry, max_cond_frames=limit)
    naive: dict[int, Naive] = {}
    value = 0.0
    for frame, actions in enumerate(steps):
        assert_equals_naive(bank, naive, frame, tokens)
        for object_id, action in actions.items():
            # An object begins with a prompt; a skipped frame leaves no memory.
            if action == "skip" or (action == "track" and object_id not in naive):
                continue
            value += 1
            entry = naive.setdefault(object_id, Naive(limit))
            (entry.conditioning if action == "prompt" else entry.others)[frame] = value
            conditioning = action == "prompt"
            store(bank, frame, [object_id], [value], conditioning=conditioning, tokens=tokens)
        for object_id in [i for f, i in removals if f == frame and i in naive]:
            bank.remove(object_id)
            del naive[object_id]
    assert_equals_naive(bank, naive, len(steps), tokens)


def test_a_steady_stream_neither_allocates_nor_copies(small_bundle: Bundle) -> None:
    class Counting:
        """The real backend, which counts allocations and copies."""

        def __init__(self, inner: Backend) -> None:
            self.inner, self.copies, self.allocations = inner, 0, 0

        def copy(self, source: NDArray[np.float32], target: NDArray[np.float32]) -> None:
            self.copies += 1
            self.inner.copy(source, target)

        def empty(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
            self.allocations += 1
            return self.inner.empty(shape)

    counting = Counting(open_backend(small_bundle))
    bank = MemoryBank(counting, GEOMETRY)
    ids = [1, 2, 3]
    for frame in range(60):
        if frame:
            ((together, batch),) = bank.read(frame, ids, span=SPAN)
            assert together == (1, 2, 3)
        if frame == 20:
            counting.copies = counting.allocations = 0
        store(bank, frame, ids, [1.0, 2.0, 3.0], conditioning=frame == 0)
    # 40 frames, 3 objects, a memory and a pointer each: only what is new is written.
    assert (counting.copies, counting.allocations) == (40 * 3 * 2, 0)
    assert (batch.memory.shape[0], batch.pointers.shape[0]) == (7, 16)


@pytest.mark.parametrize(
    ("frame", "conditioning", "limit", "kept"),
    [
        (10, [1, 4], 3, {1, 4}),
        (10, [1, 4, 8], 2, {8, 4}),
        (5, [1, 4, 6, 9], 2, {4, 6}),
        (5, [1, 4, 6, 9], 3, {4, 6, 1}),  # 1 and 9 are equally far: the earlier wins
        (5, [1, 2, 5, 9], 2, {2, 5}),
        (5, [1, 9], 1, {1}),
    ],
)
def test_conditioning_frames_are_kept_one_before_one_after_then_nearest(
    frame: int, conditioning: list[int], limit: int, kept: set[int]
) -> None:
    assert closest_frames(frame, conditioning, limit) == kept


def test_objects_are_read_in_batches_within_the_limit(backend: Backend) -> None:
    bank = MemoryBank(backend, GEOMETRY, max_batch=2)
    store(bank, 0, [1, 2, 3, 4, 5], [1.0, 2.0, 3.0, 4.0, 5.0], conditioning=True)
    for frame in (1, 2):
        batches = bank.read(frame, [1, 2, 3, 4, 5], span=SPAN)
        assert [ids for ids, _ in batches] == [(1, 2), (3, 4), (5,)]
        for ids, batch in batches:
            pointers = backend.download(batch.pointers)
            assert (pointers == np.array(ids)[:, None]).all()
            store(bank, frame, list(ids), list(ids), conditioning=False)


def test_fewer_recent_memories_are_kept_on_request_and_all_pointers(backend: Backend) -> None:
    bank = MemoryBank(backend, GEOMETRY, slot_policy=RecentFrames(2))
    for frame in range(9):
        store(bank, frame, [1], [float(frame)], conditioning=frame == 0)
    ((_, batch),) = bank.read(9, [1], span=SPAN)
    assert sorted(batch.memory_age[:, 0].tolist()) == [0, 1, 2]
    kept = backend.download(batch.memory)[:, 0, 0, 0, 0]
    assert sorted(kept.tolist()) == [0.0, 7.0, 8.0]
    assert len(batch.pointers) == 9


def test_each_object_of_a_batch_keeps_its_own_cells(backend: Backend) -> None:
    bank = MemoryBank(backend, replace(GEOMETRY, memory_tokens=3))
    store(bank, 0, [1, 2], [5.0, 7.0], conditioning=True, tokens=3)
    ((_, batch),) = bank.read(1, [1, 2], span=SPAN)
    np.testing.assert_array_equal(batch.memory_cells, [[[5, 5, 5], [7, 7, 7]]])
