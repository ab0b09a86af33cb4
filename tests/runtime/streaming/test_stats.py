"""Statistics never end a loop."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sam2_edge import CameraLoop, VideoTracker
from sam2_edge.runtime.streaming import stats as stats_module
from sam2_edge.runtime.streaming.stats import LoopStats, resident_bytes
from tests.helpers.cameras import ScriptedCamera, opener
from tests.helpers.descriptors import no_descriptors


def test_resident_memory_is_measured() -> None:
    assert 10 * 2**20 < resident_bytes() < 2**40


def test_without_descriptors_the_memory_is_unknown_and_the_rest_is_there() -> None:
    loop = CameraLoop(opener(ScriptedCamera([])), VideoTracker("nano", threads=1))
    stats = LoopStats(loop)
    with no_descriptors():
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        assert resident_bytes() == 0
        assert stats.snapshot()["resident_mb"] == 0


@pytest.mark.parametrize("content", [None, "", "text\n", "1 x"])
def test_a_strange_proc_is_survived(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "statm").write_text(content)
    monkeypatch.setattr(stats_module, "Path", lambda _: tmp_path / "statm")
    assert resident_bytes() == 0
