"""Scored frames by the published protocols, against cases computed by hand."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from sam2_edge.evaluation.metrics import boundary_accuracy, region_similarity
from sam2_edge.evaluation.vos.datasets import LayoutName
from sam2_edge.evaluation.vos.protocols import FrameScore, score

# The truth is 4 x 4 pixels in a picture of 12 x 12; the prediction is 0, 1, 2 or 3 columns to the
# right of it.
#
# J, columns in both masks out of columns in either: 4 of 4, 3 of 5, 2 of 6, 1 of 7.
# F: the tolerance is 0.008 of the diagonal of 17 pixels, rounded up to 1 pixel. A boundary has 16
#    pixels, the edge of a square of 5 x 5. In both directions, these match:
#      0 and 1 columns off: all 16.
#      2 columns off: the four rightmost columns of rows 3 and 7 (4 + 4), and the two pixels of
#        the last column next to these rows (2), so 10.
#      3 columns off: the three rightmost columns of these rows (3 + 3), and the last column, which
#        is next to the other boundary's first one (3), so 9.
J = (1, 3 / 5, 2 / 6, 1 / 7)
F = (1, 1, 10 / 16, 9 / 16)


def _square(left: int) -> np.ndarray:
    mask = np.zeros((12, 12), np.bool_)
    mask[4:8, left : left + 4] = True
    return mask


def _frame(number: int, shift: int, *, prompted: bool = False) -> FrameScore:
    ours, truth = _square(2 + shift), _square(2)
    return FrameScore(
        number,
        region_similarity(ours, truth),
        boundary_accuracy(ours, truth),
        shown=True,
        truth=True,
        prompted=prompted,
    )


def _absent(number: int) -> FrameScore:
    return FrameScore(number, 1.0, 1.0, shown=False, truth=False)


def test_davis_by_hand() -> None:
    # Of six frames, the first and the last do not count: the four cases remain.
    frames = [_frame(i, shift) for i, shift in enumerate((3, 0, 1, 2, 3, 0))]
    found = score(frames, "davis")
    assert found.frames == 4
    assert asdict(found.j) == pytest.approx(
        # Recall: the first two are above 0.5. Decay: the first two of four frames against the
        # last two.
        {"mean": sum(J) / 4, "recall": 2 / 4, "decay": (J[0] + J[1]) / 2 - (J[2] + J[3]) / 2}
    )
    assert asdict(found.f) == pytest.approx(
        {"mean": sum(F) / 4, "recall": 1, "decay": 1 - (F[2] + F[3]) / 2}
    )
    assert score(frames, "mose") == found


def test_sa_v_by_hand() -> None:
    # As in DAVIS, over the object's own files. A frame counts once truth or prediction has shown
    # the object, even if it is correctly empty later.
    frames = [_frame(0, 0), _absent(4), _frame(8, 1), _absent(12), _frame(16, 3), _frame(20, 0)]
    found = score(frames, "sa-v")
    assert found.frames == 3
    assert found.j.mean == pytest.approx((J[1] + 1 + J[3]) / 3)
    assert found.f.mean == pytest.approx((F[1] + 1 + F[3]) / 3)
    assert score(frames[:2], "sa-v") is None


@pytest.mark.parametrize("layout", ["davis", "mose", "sa-v", "lvos"])
def test_frames_without_the_object_by_hand(layout: LayoutName) -> None:
    # The object is absent on two frames between the ends. Predicting nothing there is correct; any
    # mask there shares nothing with the truth, nor does its boundary.
    nothing, mask = np.zeros((12, 12), np.bool_), _square(2)
    frames = [_frame(1, 0)]
    for number, ours in ((6, nothing), (11, mask)):
        j, f = region_similarity(ours, nothing), boundary_accuracy(ours, nothing)
        frames.append(FrameScore(number, j, f, shown=bool(ours.any()), truth=False))
    frames += [_frame(16, 2), _frame(21, 0)]
    if layout == "sa-v":  # which skips frames before either has shown the object
        frames.insert(1, _frame(5, 1))
    first = [(J[1], F[1])] if layout == "sa-v" else []
    counted = [*first, (1, 1), (0, 0), (J[2], F[2])]

    found = score(frames, layout)

    assert found.frames == len(counted)
    assert found.j.mean == pytest.approx(np.mean([j for j, _ in counted]))
    assert found.f.mean == pytest.approx(np.mean([f for _, f in counted]))


def test_lvos_by_hand() -> None:
    # Between frames 11 and 31, excluding both. Without a range, between the first and the last
    # frame whose true mask shows the object, which frame 36 does not.
    frames = [_absent(1), _absent(6), _frame(11, 3), _frame(16, 1), _frame(21, 2), _absent(26)]
    frames += [_frame(31, 3), _absent(36)]
    frames.insert(4, _frame(17, 3))  # not a multiple of 5 after the first
    found = score(frames, "lvos", (11, 31))
    assert found.frames == 3
    assert found.j.mean == pytest.approx((J[1] + J[2] + 1) / 3)
    assert found.f.mean == pytest.approx((F[1] + F[2] + 1) / 3)
    assert score(frames, "lvos") == found
    assert score(frames, "lvos", (11, 21)).j.mean == pytest.approx(J[1])


def test_youtube_vos_by_hand() -> None:
    # Every frame after the prompted one.
    frames = [_absent(0), _frame(5, 0, prompted=True), _frame(10, 2), _frame(15, 3)]
    found = score(frames, "youtube-vos")
    assert found.frames == 2
    assert found.j.mean == pytest.approx((J[2] + J[3]) / 2)
    assert found.f.mean == pytest.approx((F[2] + F[3]) / 2)


def test_absence_before_an_object_appears_counts_as_correct() -> None:
    frames = [_absent(0), _absent(1), _frame(2, 2), _frame(3, 0)]
    assert score(frames, "mose").j.mean == pytest.approx((1 + J[2]) / 2)
