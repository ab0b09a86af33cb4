"""Tracking a whole file: reading ahead changes neither results nor errors."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2_edge import Bundle, Prompt, PromptError, SinkError, SourceError, VideoTracker
from sam2_edge.runtime.sources import SourceFrame
from sam2_edge.runtime.sources.video import open_source
from sam2_edge.runtime.streaming.offline import track_source
from tests.helpers.clips import Clip, write_video
from tests.helpers.results import MemorySink

PROMPTS = {0: [Prompt(1, points=[(34, 38)])], 3: [Prompt(2, box=(70, 70, 120, 120))]}


class ListedFrames:
    """A source of arrays."""

    def __init__(self, pictures: list[Any], *, error: Exception | None = None) -> None:
        self.frames = self.limit = len(pictures)
        self.start, self.fps = 0, 25.0
        self.read = 0
        self._pictures, self._error = pictures, error

    def __iter__(self) -> Generator[SourceFrame, None, None]:
        for index, picture in enumerate(self._pictures):
            self.read += 1
            yield SourceFrame(index, f"{index:05d}", picture)
        if self._error:
            raise self._error


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Generator[None, None, None]:
    yield
    assert [t for t in threading.enumerate() if t.name.startswith("sam2_edge")] == []


def test_results_equal_those_of_frame_after_frame(
    small_bundle: Bundle, clip: Clip, tmp_path: Path
) -> None:
    source = open_source(write_video(tmp_path / "clip.avi", clip.frames))
    plain, sink = VideoTracker(small_bundle), MemorySink()
    expected = [plain.track(f.picture, PROMPTS.get(f.index, ())) for f in source]
    ahead = VideoTracker(small_bundle)
    got = list(track_source(source, ahead, PROMPTS, [sink]))
    assert [frame.index for frame, _ in got] == sink.frames == list(range(len(clip.frames)))
    assert sink.closed == 1
    for (frame, result), wanted in zip(got, expected, strict=True):
        assert frame.picture.shape[:2] == result.frame_size == wanted.frame_size
        assert len(result.objects) == len(wanted.objects)
        for found, known in zip(result.objects, wanted.objects, strict=True):
            np.testing.assert_array_equal(found.mask, known.mask)
            assert (found.iou, found.object_score) == (known.iou, known.object_score)


@pytest.mark.parametrize("broken", ["source", "frame", "sink", "prompt"])
def test_an_error_comes_at_its_frame(small_bundle: Bundle, clip: Clip, broken: str) -> None:
    pictures: list[Any] = list(clip.frames[:5])
    sink, prompts = MemorySink(), dict(PROMPTS)
    error: type[Exception] = SourceError
    if broken == "source":
        source = ListedFrames(pictures, error=SourceError("the file is truncated"))
    elif broken == "frame":
        source = ListedFrames([*pictures, np.zeros((9, 9), np.uint8), pictures[0]])
    elif broken == "sink":
        source, error = ListedFrames(pictures * 2), SinkError
        sink = MemorySink(fails_on=range(5, 6))
    else:
        source, error = ListedFrames(pictures * 2), PromptError
        prompts[5] = [Prompt(3, points=[(-5, 5)])]
    tracker, seen = VideoTracker(small_bundle), list[int]()
    with pytest.raises(error):
        for frame, _ in track_source(source, tracker, prompts, [sink]):
            seen.append(frame.index)  # what comes before the error counts
    assert seen == sink.frames == [0, 1, 2, 3, 4]
    assert sink.closed == 1


def test_an_early_end_reads_only_a_few_frames_more(small_bundle: Bundle, clip: Clip) -> None:
    source, sink = ListedFrames(list(clip.frames)), MemorySink()
    results = track_source(source, VideoTracker(small_bundle), PROMPTS, [sink])
    next(results)
    results.close()
    assert sink.frames == [0]
    assert source.read <= 3
