"""Results are written in another thread, and a sink that fails does not stop the others."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sinks.jsonl import JsonLines
from sam2_edge.runtime.sinks.masks import MaskFolder
from sam2_edge.runtime.sinks.rotation import RotatingSink, RotationPolicy
from sam2_edge.runtime.streaming import writer as writer_module
from sam2_edge.runtime.streaming.writer import MAX_WAITING_RESULTS, ResultWriter
from tests.helpers.clock import WAIT_S, wait_until
from tests.helpers.descriptors import no_descriptors
from tests.helpers.results import MemorySink, tracked_frame


def write(*sinks: Sink, count: int = 60) -> ResultWriter:
    """Write results to the sinks and finish."""
    writer = ResultWriter(sinks, wait=True)
    writer.start()
    for index in range(count):
        writer.put(*tracked_frame(index))
    writer.close()
    return writer


def test_a_sink_that_fails_is_reported_and_the_others_continue() -> None:
    bad, good = MemorySink(fails_on=range(5, 60)), MemorySink()
    writer = write(bad, good)
    assert bad.frames == list(range(5))
    assert good.frames == list(range(60))
    assert (bad.closed, good.closed) == (1, 1)
    assert (writer.failures, str(writer.first_failure)) == (1, "the disk is full")


def test_any_exception_of_a_sink_is_reported_as_a_sink_error() -> None:
    bad, good = MemorySink(fails_on=range(60), error=OSError("the disk is gone")), MemorySink()
    writer = write(bad, good)
    assert good.frames == list(range(60))
    assert "OSError: the disk is gone" in str(writer.first_failure)


def test_a_reader_that_closes_its_pipe_is_no_failure() -> None:
    pipe, other = MemorySink(fails_on=range(5, 60), error=BrokenPipeError()), MemorySink()
    writer = write(pipe, other)
    assert (pipe.frames, other.frames) == (list(range(5)), list(range(60)))
    assert (writer.lost_reader, writer.failures, writer.first_failure) == (True, 0, None)


def test_a_sink_that_starts_a_new_file_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "RETRY_S", 0.0)
    sink = MemorySink(fails_on=range(5, 8))
    sink.starts_new_file = True
    writer = write(sink)
    assert sink.frames == [*range(5), *range(8, 60)]
    assert writer.failures == 3


@pytest.mark.parametrize("wait", [False, True])
def test_a_slow_sink_holds_up_only_a_writer_that_waits(wait: bool) -> None:
    gate = threading.Event()

    class SlowSink(MemorySink):
        def write(self, *item: Any) -> None:
            gate.wait(WAIT_S)
            super().write(*item)

    sink = SlowSink()
    writer = ResultWriter([sink], wait=wait)
    writer.start()
    if wait:
        gate.set()
    for index in range(20):
        writer.put(*tracked_frame(index))
    gate.set()
    writer.close()
    # Without waiting: one is being written, the others are queued.
    assert writer.skipped == 0 if wait else writer.skipped >= 20 - 1 - MAX_WAITING_RESULTS
    assert len(sink.frames) + writer.skipped == 20


def test_a_sink_that_finds_no_descriptor_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_S", 0.0)
    policy = RotationPolicy(2**20, 60, 2**20)
    sinks = [
        RotatingSink(tmp_path, "lines", ".jsonl", JsonLines, policy),
        RotatingSink(tmp_path, "masks", "", MaskFolder, policy),
    ]
    writer = ResultWriter(sinks, wait=True)
    writer.start()
    with no_descriptors():
        writer.put(*tracked_frame(0))
        wait_until(lambda: writer.failures == len(sinks))
    writer.put(*tracked_frame(1))
    writer.close()
    assert "Too many open files" in str(writer.first_failure)
    (lines,) = tmp_path.glob("*.jsonl")
    assert '"frame": 1' in lines.read_text()
    assert len(list(tmp_path.glob("masks-*/00001.png"))) == 1
