"""Statistics never end a loop."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from sam2_edge import CameraLoop, VideoTracker
from sam2_edge.runtime.streaming import stats as stats_module
from sam2_edge.runtime.streaming.stats import LoopStats, resident_bytes
from tests.helpers.cameras import ScriptedCamera, opener


@pytest.fixture
def no_descriptors() -> Iterator[None]:
    """Let the process open no more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with TemporaryFile() as lowest_free:
        limit = lowest_free.fileno() + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        held = []
        with suppress(OSError):
            while True:
                held.append(os.dup(lowest_free.fileno()))
        yield None
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


def test_resident_memory_is_measured() -> None:
    assert 10 * 2**20 < resident_bytes() < 2**40


def test_without_descriptors_the_memory_is_unknown_and_the_rest_is_there(
    no_descriptors: None,  # noqa: ARG001
) -> None:
    with pytest.raises(OSError, match="Too many open files"):
        os.open("/dev/null", os.O_RDONLY)
    assert resident_bytes() == 0
    loop = CameraLoop(opener(ScriptedCamera([])), VideoTracker.__new__(VideoTracker))
    assert LoopStats(loop).snapshot()["resident_mb"] == 0


@pytest.mark.parametrize("content", [None, "", "text\n", "1 x"])
def test_a_strange_proc_is_survived(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "statm").write_text(content)
    monkeypatch.setattr(stats_module, "Path", lambda _: tmp_path / "statm")
    assert resident_bytes() == 0
