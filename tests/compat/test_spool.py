"""Outputs of frames in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sam2_edge.bundle.contract import Geometry
from sam2_edge.compat.video.spool import MEMORIES_CACHED, Spool


def test_unreferenced_records_are_reused_and_the_file_has_no_name(tmp_path: Path) -> None:
    geometry = Geometry(image_size=64, hidden=8, memory_channels=4)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(16, 16)).astype(np.float32)
    pointer, memory = np.arange(8, dtype=np.float32), np.full((4, 4, 4), 1.5, np.float32)
    spool = Spool(geometry, "bfloat16")
    outputs = [spool.add(logits + i, pointer, float(i)) for i in range(MEMORIES_CACHED + 4)]
    for output in outputs:
        output.add_memory(memory * output.object_score)
    for i, output in enumerate(outputs):
        np.testing.assert_array_equal(output.logits, logits + i)
        np.testing.assert_array_equal(output.pointer, pointer)
        np.testing.assert_array_equal(output.memory, memory * i)
    del output, outputs[:10]
    assert len(spool._free) == 10
    spool.add(logits, pointer, 0.0)
    assert spool._count == MEMORIES_CACHED + 4
    assert not list(tmp_path.iterdir())
