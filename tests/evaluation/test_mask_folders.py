"""Reading and scoring folders of masks, in Python and with `sam2-edge score`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

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

    with pytest.raises(SourceError, match="contains 2 masks; give at least three"):
        folder_accuracy(annotations / "00000", annotations / "00000")


def test_masks_of_another_size_are_rejected(annotations: Path) -> None:
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(annotations / "00001/00003.png")

    with pytest.raises(SourceError, match=r"00001/00003\.png is 8 x 9 pixels; .* 64 x 64"):
        folder_accuracy(annotations / "00001", annotations / "00000")


def write_masks(folder: Path, suffix: str, masks: list[NDArray[np.uint8]]) -> Path:
    folder.mkdir()
    for index, mask in enumerate(masks, 8):
        Image.fromarray(mask).save(folder / f"{index}{suffix}")
    return folder


def squares(value: int, corner: int = 0) -> list[NDArray[np.uint8]]:
    """Four masks of a moving square."""
    masks = [np.zeros((32, 32), np.uint8) for _ in range(4)]
    for index, mask in enumerate(masks):
        mask[4 + index : 14 + index, 5:15] = value
        mask[31, 31] = corner
    return masks


@pytest.mark.parametrize("ours", [1, 255])
@pytest.mark.parametrize("theirs", [1, 255])
def test_binary_masks_of_0_and_255_are_those_of_0_and_1(
    tmp_path: Path, ours: int, theirs: int
) -> None:
    masks = write_masks(tmp_path / "ours", ".PNG", squares(ours))
    truth = write_masks(tmp_path / "truth", ".png", squares(theirs))
    (truth / "._8.png").write_bytes(b"Mac OS X")

    found = folder_accuracy(masks, truth)

    assert found.keys() == {1}
    assert found[1].j_and_f == 1


def test_255_is_void_beside_objects(tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "ours", ".png", squares(9))
    truth = write_masks(tmp_path / "truth", ".png", squares(9, corner=255))

    found = folder_accuracy(masks, truth)

    assert found.keys() == {9}
    assert found[9].j_and_f == 1


def test_the_first_and_last_masks_are_those_with_the_lowest_and_highest_number(
    tmp_path: Path,
) -> None:
    wrong = squares(1)
    wrong[0][:], wrong[3][:] = 1, 0  # 8.png and 11.png, which are not scored
    truth = write_masks(tmp_path / "truth", ".png", squares(1))

    found = folder_accuracy(write_masks(tmp_path / "ours", ".png", wrong), truth)

    assert found[1].j_and_f == 1


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
