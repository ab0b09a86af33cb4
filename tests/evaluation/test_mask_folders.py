"""Reading and scoring folders of masks, in Python and with `sam2-edge score`."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam2_edge.errors import SourceError
from sam2_edge.evaluation.mask_folders import folder_accuracy
from sam2_edge.synthetic import clip
from sam2_edge.synthetic.dataset import write_dataset
from tests.helpers.cli import run


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """The folder of true masks of two clips."""
    clips = [
        clip(seed, frames=6, size=64, objects=2, split="heldout", photographs=False)
        for seed in (0, 1)
    ]
    write_dataset(tmp_path / "data", clips)
    return tmp_path / "data/Annotations"


def test_the_truth_scores_one_against_itself(annotations: Path) -> None:
    found = folder_accuracy(annotations / "00000", annotations / "00000")

    assert found.keys() == {1, 2}
    assert all(accuracy.j_and_f == 1 for accuracy in found.values())


def test_folders_with_different_file_names_are_rejected(annotations: Path) -> None:
    (annotations / "00001/00003.png").unlink()

    with pytest.raises(SourceError, match="the file names in .* differ"):
        folder_accuracy(annotations / "00001", annotations / "00000")


def test_two_masks_are_too_few(annotations: Path) -> None:
    for name in ("00002", "00003", "00004", "00005"):
        (annotations / f"00000/{name}.png").unlink()

    with pytest.raises(SourceError, match="at least three masks"):
        folder_accuracy(annotations / "00000", annotations / "00000")


def test_the_command_prints_a_line_per_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], annotations: Path
) -> None:
    truth = annotations / "00000"

    assert run(monkeypatch, "score", truth, truth) == 0

    line = "object 2: J&F 1.000 (J 1.000, F 1.000)"
    assert line in capsys.readouterr().out.splitlines()


def test_the_command_reports_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], annotations: Path
) -> None:
    truth = annotations / "00000"

    assert run(monkeypatch, "score", truth) == 2
    capsys.readouterr()
    assert run(monkeypatch, "score", annotations, truth) == 1
    assert capsys.readouterr().err.startswith("error:")
