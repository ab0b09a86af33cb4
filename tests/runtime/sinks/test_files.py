"""Output files are written atomically, and replace others only with `overwrite`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sam2_edge import SinkError
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sinks.files import check_outputs, write_image, write_text
from sam2_edge.runtime.sinks.jsonl import JsonLines
from sam2_edge.runtime.sinks.masks import MaskFolder
from sam2_edge.runtime.sinks.video import OverlayVideo
from tests.helpers.disk import run_on_full_disk
from tests.helpers.results import tracked_frame

MAKE: dict[str, Callable[[Path, bool], Sink]] = {
    "o.mp4": lambda p, over: OverlayVideo(p, fps=5, overwrite=over),
    "o.jsonl": lambda p, over: JsonLines(p, overwrite=over),
}


@pytest.mark.parametrize(("name", "make"), MAKE.items(), ids=MAKE.keys())
def test_an_existing_file_is_replaced_only_with_overwrite(
    tmp_path: Path, name: str, make: Callable[[Path, bool], Sink]
) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(SinkError, match="--overwrite"):
        make(tmp_path / name, False)
    assert (tmp_path / name).read_text() == "precious"
    sink = make(tmp_path / name, True)
    sink.write(*tracked_frame(0))
    sink.close()
    assert b"precious" not in (tmp_path / name).read_bytes()


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE.keys())
def test_a_folder_is_never_replaced_by_a_file(
    tmp_path: Path, make: Callable[[Path, bool], Sink]
) -> None:
    (tmp_path / "taken.mp4").mkdir()
    with pytest.raises(SinkError, match="is a folder; give a file name"):
        make(tmp_path / "taken.mp4", True)


def test_a_file_is_never_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "masks").write_text("precious")
    for folder in (tmp_path / "masks", tmp_path / "masks" / "below"):
        with pytest.raises(SinkError, match="choose another"):
            MaskFolder(folder, overwrite=True)
    assert (tmp_path / "masks").read_text() == "precious"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="does not exist; create it first"):
        JsonLines(tmp_path / "none" / "o.jsonl")


def test_outputs_neither_replace_inputs_nor_collide(tmp_path: Path) -> None:
    clip, frames = tmp_path / "clip.mp4", tmp_path / "frames"
    clip.touch()
    frames.mkdir()
    check_outputs([clip, frames, None], [tmp_path / "a.mp4", None, tmp_path / "b.mp4"])
    for output in (clip, frames, frames / "0.png"):
        with pytest.raises(SinkError, match="would change the source"):
            check_outputs([None, clip, frames], [tmp_path / "a.mp4", output])
    with pytest.raises(SinkError, match="is given for two outputs"):
        check_outputs([clip], [tmp_path / "a", tmp_path / "frames" / ".." / "a"])


@pytest.mark.parametrize("name", ["none/o.png", "o.xyz", "o", "taken.png"])
def test_an_image_that_cannot_be_written_leaves_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(SinkError, match=f"{name} cannot be written"):
        write_image(tmp_path / name, np.zeros((3, 4, 3), np.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ["taken.png"]


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "[1]")
    write_text(tmp_path / "a.json", "[2]")
    (tmp_path / "taken").mkdir()
    with pytest.raises(SinkError, match="taken cannot be written"):
        write_text(tmp_path / "taken", "[3]")
    assert (tmp_path / "a.json").read_text() == "[2]"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "taken"]


def test_a_full_disk_leaves_no_partial_image(tmp_path: Path) -> None:
    code = (
        "noise = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)\n"
        "write_image(folder / 'small.png', noise[:20, :20])\n"
        "try: write_image(folder / 'large.png', noise)\n"
        "except SinkError as error: print(error)\n"
    )
    assert "large.png cannot be written" in run_on_full_disk(code, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["small.png"]


def test_a_full_disk_leaves_no_partial_text(tmp_path: Path) -> None:
    code = (
        "try: write_text(folder / 'o.json', 20_000 * 'x')\n"
        "except SinkError as error: print(error)\n"
    )
    assert "o.json cannot be written: File too large" in run_on_full_disk(code, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE.keys())
@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_written_through_a_link(
    tmp_path: Path, make: Callable[[Path, bool], Sink], overwrite: bool
) -> None:
    (tmp_path / "precious").write_text("precious")
    for name, points_to in (("a.mp4", "precious"), ("b.mp4", "missing"), ("c.mp4", "c.mp4")):
        (tmp_path / name).symlink_to(points_to)
        with pytest.raises(SinkError, match=f"{name} is a link to .*{points_to}"):
            make(tmp_path / name, overwrite)
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "missing").exists()


def test_a_link_planted_under_the_name_of_an_output_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "o.txt").symlink_to("precious")
    write_text(tmp_path / "o.txt", "result")
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "o.txt").read_text() == "result"


def test_a_link_to_a_folder_is_followed_and_one_to_nothing_refused(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "masks").symlink_to("disk")
    MaskFolder(tmp_path / "masks").write(*tracked_frame(0))
    assert [p.name for p in (tmp_path / "disk").iterdir()] == ["00000.png"]
    (tmp_path / "gone").symlink_to("missing")
    with pytest.raises(SinkError, match="gone is a link to .*missing"):
        MaskFolder(tmp_path / "gone")


def test_a_name_with_nul_is_refused() -> None:
    with pytest.raises(SinkError, match="null"):
        JsonLines(Path("a\0b"))


def test_a_pipe_is_written_and_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "result")
    assert os.read(reader, 100) == b"result"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
