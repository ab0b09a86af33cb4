"""Masks are indexed PNGs as in DAVIS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2_edge import SinkError
from sam2_edge.runtime.sinks.masks import MaskFolder
from tests.helpers.results import tracked_frame


def test_masks_have_the_colors_of_davis(tmp_path: Path) -> None:
    sink = MaskFolder(tmp_path / "masks")
    sink.write(*tracked_frame(3))
    sink.close()

    image = Image.open(tmp_path / "masks" / "00003.png")
    values = np.asarray(image)
    assert image.mode == "P"
    assert image.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    assert (values[:, :30] == 1).all()
    assert (values[:, 34:] == 0).all()


def test_a_folder_with_files_is_used_only_with_overwrite(tmp_path: Path) -> None:
    (tmp_path / "other.png").write_text("precious")
    with pytest.raises(SinkError, match="not empty"):
        MaskFolder(tmp_path)
    MaskFolder(tmp_path, overwrite=True).write(*tracked_frame(0))
    assert (tmp_path / "other.png").read_text() == "precious"
