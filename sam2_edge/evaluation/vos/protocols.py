"""Which annotated frames of an object count in its score: each data set's evaluation differs.

Sources: davisvideochallenge/davis2017-evaluation, `davis2017/evaluation.py`; facebookresearch/sam2,
`sav_dataset/utils/sav_benchmark.py`; henghuiding/MOSE-api, `MOSEv2/sam2_rcms/tools/score.py`;
LingyiHongfd/lvos-evaluation, `lvos/evaluation_mt.py`. The server of YouTube-VOS has not published
its program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import dropwhile

from sam2_edge.evaluation.metrics import Statistics, statistics
from sam2_edge.evaluation.vos.datasets import LayoutName


@dataclass(frozen=True, slots=True)
class FrameScore:
    """One object on one annotated frame.

    number: of the frame, from its file name where that is a number, else its place. j, f: 0..1.
    shown: whether the true mask or the predicted one has a pixel. truth: whether the true one has.
    prompted: whether the prompt was on this frame.
    """

    number: int
    j: float
    f: float
    shown: bool
    truth: bool
    prompted: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """An object over the frames that count: how many they are, and J and F over them."""

    frames: int
    j: Statistics
    f: Statistics


LVOS_STEP = 5
"""In LVOS frames count whose number is the object's first one plus a multiple of this; others have
no masks there."""

Rows = Sequence[FrameScore]
Range = tuple[int, int]


def score(rows: Rows, layout: LayoutName, scored_range: Range | None = None) -> Score | None:
    """The score of an object from all its annotated frames in order; None if none of them counts.

    scored_range: first and last frame number of the object in LVOS; None takes the first and the
    last frame whose true mask shows it.
    """
    counted = _COUNTED[layout](rows, scored_range)
    if not counted:
        return None
    return Score(
        len(counted), statistics([row.j for row in counted]), statistics([row.f for row in counted])
    )


def _without_ends(rows: Rows, _range: Range | None = None) -> Rows:
    """DAVIS and MOSE: all annotated frames of the video but the first and the last."""
    return rows[1:-1]


def _sav(rows: Rows, _range: Range | None) -> Rows:
    """SA-V: all but the first and the last file of the object, and from the first of these on in
    which truth or prediction shows it (`Evaluator.feed_frame` knows no object before).
    """
    return list(dropwhile(lambda row: not row.shown, rows[1:-1]))


def _lvos(rows: Rows, scored_range: Range | None) -> Rows:
    """LVOS: from the first to the last frame of the object, without these two."""
    if scored_range is None:
        numbers = [row.number for row in rows if row.truth]
        scored_range = (numbers[0], numbers[-1]) if numbers else (0, -1)
    first, last = scored_range
    within = [row for row in rows if first <= row.number <= last]
    return _without_ends([row for row in within if (row.number - first) % LVOS_STEP == 0])


def _youtube(rows: Rows, _range: Range | None) -> Rows:
    """YouTube-VOS: all frames after the one on which the object is prompted."""
    return list(dropwhile(lambda row: not row.prompted, rows))[1:]


_COUNTED: dict[LayoutName, Callable[[Rows, Range | None], Rows]] = {
    "davis": _without_ends,
    "sa-v": _sav,
    "mose": _without_ends,
    "lvos": _lvos,
    "youtube-vos": _youtube,
}
