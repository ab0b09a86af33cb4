"""Memory policies, on sequences constructed by hand according to the papers."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sam2_edge import DistractorMemory, MotionMemory, Sam2EdgeError
from sam2_edge.runtime.memory.policies import MaskCandidates, ObjectPolicy, Outcome, open_policy
from sam2_edge.runtime.memory.policies.boxes import box_iou, box_share, largest_part, mask_box
from sam2_edge.runtime.memory.policies.kalman import BoxFilter
from sam2_edge.runtime.memory.slots import Keep, KeptFrames, RecentFrames, Slot, slot_ages

SIZE = 64


def rectangle(x: int, y: int, width: int = 16, height: int = 8) -> NDArray[np.bool_]:
    mask = np.zeros((SIZE, SIZE), np.bool_)
    mask[y : y + height, x : x + width] = True
    return mask


def candidates(masks: list[NDArray[np.bool_]], iou: list[float]) -> MaskCandidates:
    """Three masks and their IoUs, as the decoder's masks 1 to 3; mask 0 is irrelevant."""
    logits = np.where(np.stack([masks[0], *masks]), np.float32(5), np.float32(-5))
    return MaskCandidates(np.array([0.99, *iou], np.float32), lambda: logits)


def end(
    rule: ObjectPolicy,
    mask: NDArray[np.bool_],
    *,
    iou: float = 0.9,
    score: float = 5.0,
    from_prompt: bool = False,
) -> Collection[Keep]:
    return list(rule.keep(Outcome(mask, iou, score, from_prompt)))


def test_the_filter_matches_a_calculation_by_hand() -> None:
    # Width 20, height 10: deviations of x 1 (2 at first), of its velocity 20/160 (1.25 at first).
    moving = BoxFilter(np.array([0.0, 0.0, 20.0, 10.0]))
    moving.advance()
    np.testing.assert_allclose(moving.box, [0, 0, 20, 10])
    # Variance of x: 4 + 1.25**2 + 1 = 6.5625, shared with the velocity 1.5625; measured with 1.
    moving.update(np.array([7.5625, 0.0, 27.5625, 10.0]))
    x = 10 + 7.5625 * 6.5625 / 7.5625  # = 16.5625
    assert moving.box[[0, 2]].mean() == pytest.approx(x)
    moving.advance()
    assert moving.box[[0, 2]].mean() == pytest.approx(x + 7.5625 * 1.5625 / 7.5625)
    np.testing.assert_allclose(moving.box[2:] - moving.box[:2], [20, 10])


def test_the_filter_equals_one_with_full_matrices() -> None:
    rng = np.random.default_rng(3)
    motion = np.eye(8) + np.eye(8, k=4)
    boxes = [np.array([t, 2 * t, t + 20, 2 * t + 9 + 0.3 * t]) for t in range(12)]
    boxes = [box + rng.normal(0, 0.5, 4) for box in boxes]

    def measured(box: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([*(box[:2] + box[2:]) / 2, *(box[2:] - box[:2])])

    def noise(state: NDArray[np.float64], place: float, speed: float) -> NDArray[np.float64]:
        sides = np.tile(state[2:4], 2)
        return np.diag(np.square(np.concatenate([place * sides / 20, speed * sides / 160])))

    state = np.concatenate([measured(boxes[0]), np.zeros(4)])
    spread = noise(state, 2, 10)
    ours = BoxFilter(boxes[0])
    for box in boxes[1:]:
        spread = motion @ spread @ motion.T + noise(state, 1, 1)
        state = motion @ state
        ours.advance()
        np.testing.assert_allclose(measured(ours.box), state[:4], atol=1e-9)
        gain = spread[:, :4] @ np.linalg.inv(spread[:4, :4] + noise(state, 1, 1)[:4, :4])
        state = state + gain @ (measured(box) - state[:4])
        spread = spread - gain @ spread[:4]
        ours.update(box)


def test_box_functions_by_hand() -> None:
    assert mask_box(np.zeros((4, 4), np.bool_)) is None
    box = mask_box(rectangle(3, 5))
    assert box is not None
    assert box.tolist() == [3, 5, 19, 13]
    assert box_iou(box, box) == 1
    assert box_iou(box, np.array([11.0, 5, 27, 13])) == pytest.approx(1 / 3)
    assert box_iou(box, np.array([30.0, 5, 40, 13])) == 0
    assert box_iou(np.zeros(4), np.zeros(4)) == 0
    two = rectangle(3, 5) | rectangle(40, 40, 3, 3)
    np.testing.assert_array_equal(largest_part(two), rectangle(3, 5))
    assert box_share(rectangle(0, 0), rectangle(16, 0)) == pytest.approx(0.5)
    assert box_share(rectangle(0, 0), two) == pytest.approx(16 * 8 / (19 * 13))
    assert box_share(rectangle(0, 0), np.zeros((SIZE, SIZE), np.bool_)) == 1


def followed(frames: int, policy: MotionMemory | None = None) -> ObjectPolicy:
    """The policy of an object that moved 2 pixels per frame, prompted on the first one."""
    rule = (policy or MotionMemory(stable_frames=5)).follow()
    for t in range(frames):
        end(rule, rectangle(2 * t, 20), from_prompt=t == 0)
    return rule


def test_motion_chooses_the_mask_at_the_predicted_place() -> None:
    near, far = rectangle(11, 20), rectangle(40, 40)
    unclear = candidates([near, far, far], [0.80, 0.85, 0.1])
    clear = candidates([near, far, far], [0.50, 0.95, 0.1])
    assert followed(4).choose(unclear) == 2  # not tracked for long enough
    assert followed(5).choose(unclear) == 1
    assert followed(5).choose(clear) == 2  # 0.75 * 0.45 outweighs 0.25 of motion
    light = MotionMemory(stable_frames=5, weight=0.01)
    assert followed(5, light).choose(unclear) == 2


@pytest.mark.parametrize(
    ("what", "kept"),
    [
        ({}, True),
        ({"iou": 0.51}, True),
        ({"iou": 0.49}, False),
        ({"score": -0.1}, False),
        ({"iou": float("nan")}, False),
        ({"mask": rectangle(40, 40)}, False),
        ({"mask": np.zeros((SIZE, SIZE), np.bool_)}, False),
        ({"mask": rectangle(40, 40), "from_prompt": True}, True),
    ],
)
def test_motion_remembers_trusted_frames(what: dict, kept: bool) -> None:
    what = {"mask": rectangle(11, 20), **what}
    assert end(followed(5), **what) == ([Keep.RECENT] if kept else [])


def test_motion_does_not_count_until_the_object_is_tracked_steadily_again() -> None:
    rule = followed(5)
    end(rule, rectangle(10, 20), score=-3)
    assert end(rule, rectangle(40, 40)) == [Keep.RECENT]
    assert (
        rule.choose(candidates([rectangle(42, 40), rectangle(0, 0), rectangle(0, 0)], [0, 1, 0]))
        == 2
    )


def test_the_weight_of_motion_is_the_published_one_for_the_model() -> None:
    assert open_policy("motion", "sam2.1-hiera-large") == MotionMemory(weight=0.15)
    assert open_policy("motion", "sam2.1-hiera-tiny") == MotionMemory(weight=0.25)


HERE, BESIDE = rectangle(4, 20), rectangle(34, 20, 18)


def anchoring(frames: int, policy: DistractorMemory | None = None) -> ObjectPolicy:
    """The policy of an object at rest without distractors, prompted on the first frame."""
    rule = (policy or DistractorMemory()).follow()
    for t in range(frames):
        end(rule, HERE, from_prompt=t == 0)
    return rule


def test_a_confident_mask_beside_a_distractor_becomes_an_anchor() -> None:
    rule = anchoring(5)
    assert rule.choose(candidates([HERE, HERE | BESIDE, HERE], [0.9, 0.5, 0.1])) == 1
    assert end(rule, HERE) == [Keep.RECENT, Keep.ANCHOR]


@pytest.mark.parametrize(
    ("frames", "masks", "iou"),
    [
        (4, [HERE, BESIDE, HERE], [0.9, 0.5, 0.1]),  # too soon after the prompt
        (6, [HERE, HERE, HERE], [0.9, 0.5, 0.1]),  # nothing beside it
        (6, [HERE, BESIDE, HERE], [0.8, 0.5, 0.1]),  # not confident
        (6, [rectangle(4, 20, 20, 8), BESIDE, HERE], [0.9, 0.5, 0.1]),  # grown by a quarter
        (6, [rectangle(4, 20, 12, 8), BESIDE, HERE], [0.9, 0.5, 0.1]),  # smaller by a quarter
    ],
)
def test_other_frames_do_not_become_anchors(
    frames: int, masks: list[NDArray[np.bool_]], iou: list[float]
) -> None:
    rule = anchoring(frames)
    assert rule.choose(candidates(masks, iou)) == 1
    assert Keep.ANCHOR not in end(rule, masks[0])


def test_anchors_are_spaced() -> None:
    rule, anchors = anchoring(1), []
    for frame in range(1, 20):
        rule.choose(candidates([HERE, BESIDE, HERE], [0.9, 0.5, 0.1]))
        if Keep.ANCHOR in end(rule, HERE):
            anchors.append(frame)
    assert anchors == [5, 10, 15]


def test_every_fifth_memory_is_kept_and_none_of_an_absent_object() -> None:
    rule, empty = anchoring(1), np.zeros((SIZE, SIZE), np.bool_)
    kept = [end(rule, HERE) for _ in range(11)]
    assert [frame for frame, kinds in enumerate(kept, 1) if kinds == [Keep.RECENT]] == [5, 10]
    assert all(kinds == [Keep.TRANSIENT] for kinds in kept if kinds != [Keep.RECENT])
    assert end(rule, HERE, score=-1) == []
    assert end(rule, empty) == []


def test_a_corrected_frame_is_kept_but_not_as_an_anchor() -> None:
    rule = anchoring(6)
    rule.choose(candidates([HERE, BESIDE, HERE], [0.9, 0.5, 0.1]))
    assert end(rule, HERE, from_prompt=True) == [Keep.RECENT]
    assert end(rule, HERE) == [Keep.TRANSIENT]


def test_masks_are_fetched_only_if_they_can_matter() -> None:
    def fetch() -> NDArray[np.float32]:
        raise AssertionError("fetched")

    low, high = np.float32([0.9, 0.5, 0.7, 0.1]), np.float32([0.9, 0.9, 0.7, 0.1])
    assert followed(4).choose(MaskCandidates(high, fetch)) == 1
    assert anchoring(4).choose(MaskCandidates(high, fetch)) == 1
    assert anchoring(5).choose(MaskCandidates(low, fetch)) == 2
    for rule in (followed(5), anchoring(5)):
        with pytest.raises(AssertionError, match="fetched"):
            rule.choose(MaskCandidates(high, fetch))


def test_kept_frames_are_numbered_by_their_order() -> None:
    kinds = [Keep.RECENT, Keep.ANCHOR, Keep.TRANSIENT, Keep.RECENT, Keep.TRANSIENT, Keep.RECENT]
    slots = [Slot(10 * i, conditioning=False, keep=kind) for i, kind in enumerate(kinds)]
    assert KeptFrames(2, 1).ages(slots, 99) == [None, 0, None, 2, None, 1]
    slots.append(Slot(60, conditioning=False, keep=Keep.TRANSIENT))
    assert KeptFrames(3, 1).ages(slots, 99) == [None, 0, None, 3, None, 2, 1]
    assert RecentFrames(2).ages(slots, 61) == [None] * 6 + [1]


@settings(max_examples=100, deadline=None)
@given(
    history=st.lists(st.sampled_from([*Keep, "prompt"]), max_size=30),
    recent=st.integers(1, 6),
    anchors=st.integers(0, 3),
    cap=st.integers(1, 3),
)
def test_ages_are_in_range_and_fill_the_slots(
    history: list, recent: int, anchors: int, cap: int
) -> None:
    slots = [
        Slot(frame, what == "prompt", Keep.RECENT if what == "prompt" else what)
        for frame, what in enumerate(history)
    ]
    ages = slot_ages(slots, len(slots), KeptFrames(recent, anchors), cap)
    conditioning = [age for slot, age in zip(slots, ages, strict=True) if slot.conditioning]
    others = [a for s, a in zip(slots, ages, strict=True) if not s.conditioning and a is not None]
    assert conditioning == [0] * min(history.count("prompt"), cap)
    timed = sorted(age for age in others if age)
    assert timed == list(range(1, len(timed) + 1))
    assert len(timed) <= recent
    assert others.count(0) == min(history.count(Keep.ANCHOR), anchors)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MotionMemory(weight=1.5), "weight is 1.5; give 0 to 1"),
        (lambda: MotionMemory(stable_frames=0), "stable_frames is 0; give 1 or more"),
        (lambda: DistractorMemory(anchors=0), "anchors is 0; give 1 or more"),
        (lambda: DistractorMemory(min_iou=float("nan")), "min_iou is nan; give 0 to 1"),
        (lambda: open_policy("best", "nano"), "memory_policy is 'best'; give one of original"),
    ],
)
def test_invalid_settings_are_refused(make: object, message: str) -> None:
    with pytest.raises(Sam2EdgeError, match=message):
        make()  # type: ignore[operator]
