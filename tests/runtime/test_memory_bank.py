"""The memory bank against a naive implementation that keeps every frame."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_edge import Bundle
from sam2_edge.runtime.backends import Backend, Tensor, open_backend
from sam2_edge.runtime.backends.host import HostTensors
from sam2_edge.runtime.memory.bank import MemoryBank
from sam2_edge.runtime.memory.slots import Keep, KeptFrames, RecentFrames, closest_frames
from tests.helpers.memory import GEOMETRY, SPAN, memories, store


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
    order = iter(ids := bank.in_batches(frame, list(naive)))
    assert sorted(ids) == sorted(naive)
    batches = bank.read(frame, ids, span=SPAN)
    counts = [(len(batch.memory_rows), len(batch.pointers)) for batch in batches]
    assert len(set(counts)) == len(counts)  # equal ones share a batch
    for batch in batches:
        memory = memories(batch)
        if tokens is None:
            assert batch.memory_cells is None
        else:  # every memory has cells of its own
            expected = np.repeat(memory[:, :, None], tokens, axis=2)
            np.testing.assert_array_equal(batch.memory_cells, expected)
        for column in range(memory.shape[1]):
            object_id = next(order)
            ages = batch.memory_age[:, column].tolist()
            values = memory[:, column].tolist()
            assert sorted(zip(ages, values, strict=True)) == sorted(
                naive[object_id].memories(frame)
            )
            ages = np.round(batch.pointer_age[:, column] * (SPAN - 1)).astype(int).tolist()
            values = batch.pointers[:, column, 0].tolist()
            assert sorted(zip(ages, values, strict=True)) == sorted(
                naive[object_id].pointers(frame)
            )
    assert next(order, None) is None


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


class Counting(HostTensors):
    """Counts allocations and copies."""

    def __init__(self) -> None:
        self.copies = self.allocations = 0

    def copy(self, source: Tensor, target: Tensor) -> None:
        self.copies += 1
        super().copy(source, target)

    def empty(self, shape: tuple[int, ...], dtype: str = "float32") -> Tensor:
        self.allocations += 1
        return super().empty(shape, dtype)


def test_a_steady_stream_neither_allocates_nor_copies_and_repeats_its_rows() -> None:
    counting = Counting()
    bank = MemoryBank(counting, GEOMETRY)
    ids, used = [1, 2, 3], []
    for frame in range(60):
        if frame:
            (batch,) = bank.read(frame, ids, span=SPAN)
            used.append(batch.memory_rows)
        if frame == 20:
            counting.copies = counting.allocations = 0
        store(bank, frame, ids, [1.0, 2.0, 3.0], conditioning=frame == 0)
    assert (counting.copies, counting.allocations) == (0, 0)
    assert (len(batch.memory_rows), len(batch.pointers)) == (7, 16)
    # The written row, whose address a captured CUDA graph holds, takes 7 places.
    assert len({tuple(rows[-1]) for rows in used[20:]}) == 7


def test_the_buffer_follows_the_number_of_objects() -> None:
    bank = MemoryBank(Counting(), GEOMETRY)
    everyone = list(range(1, 21))
    sizes = []
    for frame in range(40):
        ids = everyone if 10 <= frame < 20 else [1]
        for object_id in everyone:
            if object_id not in ids:
                bank.remove(object_id)
        new = [i for i in ids if i not in bank]
        known = [i for i in ids if i in bank]
        if known:
            order = bank.in_batches(frame, known)
            values = np.concatenate([memories(b)[-1] for b in bank.read(frame, order, span=SPAN)])
            assert values.tolist() == [100 * i + frame - 1 for i in order]
        for members, conditioning in ((known, False), (new, True)):
            if members:
                values = [100.0 * i + frame for i in members]
                store(bank, frame, members, values, conditioning=conditioning)
        (batch, *_) = bank.read(frame + 1, [1], span=SPAN)
        sizes.append(batch.memory.shape[0])
    assert sizes[9] <= 12
    assert 7 * 20 <= max(sizes) <= 2 * 8 * 20
    assert sizes[-1] <= 4 * 8


def test_the_buffer_has_at_most_the_rows_that_memory_attention_takes(backend: Backend) -> None:
    bank = MemoryBank(backend, GEOMETRY, max_rows=10)
    sizes = []
    for object_id in range(1, 13):
        rows, _ = bank.take_rows(1)
        pointer = np.zeros((1, GEOMETRY.hidden), np.float32)
        bank.write(0, [object_id], rows, pointer, conditioning=True)
        sizes.append(bank.read(1, [object_id], span=SPAN)[0].memory.shape[0])
    assert sizes == [8] * 8 + [10, 10, 11, 12]


def test_rows_of_one_object_between_others_do_not_keep_the_buffer_growing() -> None:
    bank = MemoryBank(Counting(), GEOMETRY, slot_policy=KeptFrames(3, 3))
    for frame in range(300):
        ids = [1, 2, 3, 4]
        keep = [(Keep.ANCHOR,) if (frame + i) % 5 == 0 else (Keep.TRANSIENT,) for i in ids]
        rows, memory = bank.take_rows(4)
        memory[:] = np.array(ids, np.float32)[:, None, None, None]
        pointers = np.zeros((4, 8), np.float32)
        bank.write(frame, ids, rows, pointers, conditioning=frame == 0, keep=keep)
        order = bank.in_batches(frame + 1, ids)
        batches = bank.read(frame + 1, order, span=SPAN)
        found = np.concatenate([memories(batch)[0] for batch in batches])
        assert found.tolist() == order
        assert batches[0].memory.shape[0] <= 64


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
        for ids, batch in zip(([1, 2], [3, 4], [5]), batches, strict=True):
            assert (batch.pointers == np.array(ids)[:, None]).all()
            assert (memories(batch) == np.array(ids)).all()
            store(bank, frame, ids, ids, conditioning=False)


def test_fewer_recent_memories_are_kept_on_request_and_all_pointers(backend: Backend) -> None:
    bank = MemoryBank(backend, GEOMETRY, slot_policy=RecentFrames(2))
    for frame in range(9):
        store(bank, frame, [1], [float(frame)], conditioning=frame == 0)
    (batch,) = bank.read(9, [1], span=SPAN)
    assert sorted(batch.memory_age[:, 0].tolist()) == [0, 1, 2]
    assert sorted(memories(batch)[:, 0].tolist()) == [0.0, 7.0, 8.0]
    assert len(batch.pointers) == 9


def test_each_object_of_a_batch_keeps_its_own_cells(backend: Backend) -> None:
    bank = MemoryBank(backend, replace(GEOMETRY, memory_tokens=3))
    store(bank, 0, [1, 2], [5.0, 7.0], conditioning=True, tokens=3)
    (batch,) = bank.read(1, [1, 2], span=SPAN)
    np.testing.assert_array_equal(batch.memory_cells, [[[5, 5, 5], [7, 7, 7]]])
