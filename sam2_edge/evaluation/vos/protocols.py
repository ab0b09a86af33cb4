"""The data sets' scoring protocols: which annotated frames of an object are scored.

Sources: davisvideochallenge/davis2017-evaluation, `davis2017/evaluation.py`; facebookresearch/sam2,
`sav_dataset/utils/sav_benchmark.py`; henghuiding/MOSE-api, `MOSEv2/sam2_rcms/tools/score.py`;
LingyiHongfd/lvos-evaluation, `lvos/evaluation_mt.py`. YouTube-VOS has not published its server's
evaluation code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import dropwhile

from sam2_edge.evaluation.metrics import Statistics, statistics
from sam2_edge.evaluation.vos.datasets import LayoutName


@dataclass(frozen=True, slots=True)
class FrameScore:
    """J and F of one object on one annotated frame.

    Attributes:
        number: The frame's file name if that is a number, otherwise its index.
        shown: Whether the true or the predicted mask is not empty.
        truth: Whether the true mask is not empty.
        prompted: Whether this frame was prompted.
    """

    number: int
    j: float
    f: float
    shown: bool
    truth: bool
    prompted: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """J and F of an object over the scored frames, and the number of these frames."""

    frames: int
    j: Statistics
    f: Statistics


LVOS_STEP = 5
"""LVOS scores every fifth frame, starting from an object's first one; others have no masks."""

Rows = Sequence[FrameScore]
Range = tuple[int, int]


def score(rows: Rows, layout: LayoutName, scored_range: Range | None = None) -> Score | None:
    """Score an object.

    Args:
        rows: All annotated frames of the object, in order.
        layout: Layout of the data set.
        scored_range: The object's first and last frame number, for LVOS; None for the first and
            last frames whose true mask shows it.

    Returns:
        The score; None if no frame is scored.
    """
    counted = _COUNTED[layout](rows, scored_range)
    if not counted:
        return None
    return Score(
        len(counted), statistics([row.j for row in counted]), statistics([row.f for row in counted])
    )


def _without_ends(rows: Rows, _range: Range | None = None) -> Rows:
    """DAVIS and MOSE: all annotated frames of the video except the first and the last."""
    return rows[1:-1]


def _sav(rows: Rows, _range: Range | None) -> Rows:
    """SA-V: all of the object's files except the first and last, starting with the first one in
    which truth or prediction shows it (`Evaluator.feed_frame` ignores the object until then).
    """
    return list(dropwhile(lambda row: not row.shown, rows[1:-1]))


def _lvos(rows: Rows, scored_range: Range | None) -> Rows:
    """LVOS: all frames between the object's first and last one, excluding both."""
    if scored_range is None:
        numbers = [row.number for row in rows if row.truth]
        scored_range = (numbers[0], numbers[-1]) if numbers else (0, -1)
    first, last = scored_range
    within = [row for row in rows if first <= row.number <= last]
    return _without_ends([row for row in within if (row.number - first) % LVOS_STEP == 0])


def _youtube(rows: Rows, _range: Range | None) -> Rows:
    """YouTube-VOS: all frames after the prompted one."""
    return list(dropwhile(lambda row: not row.prompted, rows))[1:]


_COUNTED: dict[LayoutName, Callable[[Rows, Range | None], Rows]] = {
    "davis": _without_ends,
    "sa-v": _sav,
    "mose": _without_ends,
    "lvos": _lvos,
    "youtube-vos": _youtube,
}
