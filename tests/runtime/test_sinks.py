"""What is written is right, whole, and never replaces what was there unasked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sam2_edge import FrameResult, ObjectResult, SinkError
from sam2_edge.runtime.results import decode_rle
from sam2_edge.runtime.sinks import Sink, video
from sam2_edge.runtime.sinks.files import write_image, write_text
from sam2_edge.runtime.sinks.jsonl import JsonLines
from sam2_edge.runtime.sinks.masks import MaskFolder
from sam2_edge.runtime.sinks.video import OverlayVideo
from sam2_edge.runtime.sources import SourceFrame


def frame(index: int, size: tuple[int, int] = (48, 64)) -> tuple[SourceFrame, FrameResult]:
    """A gray frame with object 1 on its left half and an absent object 2."""
    logits = np.full((16, 16), -5, np.float32)
    logits[:, :8] = 5
    found = ObjectResult(1, logits, 0.75, 2.0, size)
    gone = ObjectResult(2, np.full((16, 16), -1024, np.float32), 0.5, -1.0, size)
    picture = np.full((*size, 3), 120, np.uint8)
    return SourceFrame(index, f"{index:05d}", picture), FrameResult(index, (found, gone), size, 4.0)


def test_an_overlay_video_has_every_frame_and_shows_the_object(tmp_path: Path) -> None:
    sink = OverlayVideo(tmp_path / "o.avi", fps=12)
    for index in range(5):
        sink.write(*frame(index, (48, 64) if index < 4 else (100, 90)))
    sink.close()

    capture = cv2.VideoCapture(str(tmp_path / "o.avi"))
    pictures = [capture.read()[1] for _ in range(5)]
    assert not capture.read()[0]
    assert capture.get(cv2.CAP_PROP_FPS) == 12
    assert {p.shape for p in pictures} == {(48, 64, 3)}
    blue, _, red = pictures[0][24, 16].astype(int)
    assert blue < 110 < red + 20  # object 1 is dark red in the palette
    assert np.abs(pictures[0][24, 60].astype(int) - 120).max() < 8


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".MP4"])
def test_an_overlay_video_of_every_kind_can_be_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"o{suffix}"
    sink = OverlayVideo(path, fps=10)
    for index in range(7):
        sink.write(*frame(index))
    sink.close()
    capture = cv2.VideoCapture(str(path))
    assert [capture.read()[0] for _ in range(8)] == 7 * [True] + [False]


def test_an_overlay_video_on_a_disk_that_fills_up_stays_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = OverlayVideo(tmp_path / "o.mp4", fps=10)
    for index in range(3):
        sink.write(*frame(index))
    monkeypatch.setattr(video, "MIN_FREE_BYTES", 2**62)  # more than any disk has
    with pytest.raises(SinkError, match=r"o\.mp4: .* free on the disk"):
        sink.write(*frame(3))
    sink.close()
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_masks_are_indexed_pngs_in_the_colors_of_davis(tmp_path: Path) -> None:
    sink = MaskFolder(tmp_path / "masks")
    sink.write(*frame(3))
    sink.close()

    image = Image.open(tmp_path / "masks" / "00003.png")
    values = np.asarray(image)
    assert image.mode == "P"
    assert image.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    assert (values[:, :30] == 1).all()
    assert (values[:, 34:] == 0).all()


def test_json_lines_tell_each_object(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "o.jsonl")
    sink.write(*frame(7))
    sink.close()

    first, second = map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines())
    assert {k: first[k] for k in ("frame", "name", "object", "present", "iou")} == {
        "frame": 7,
        "name": "00007",
        "object": 1,
        "present": True,
        "iou": 0.75,
    }
    np.testing.assert_array_equal(decode_rle(first["rle"]), frame(7)[1][1].mask)
    assert (second["object"], second["present"]) == (2, False)


def test_json_lines_are_on_disk_before_the_end(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "o.jsonl")
    sink.write(*frame(0))
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 2
    sink.close()


def test_json_lines_to_a_device_that_keeps_nothing_are_fine() -> None:
    sink = JsonLines(Path("/dev/null"))
    sink.write(*frame(0))
    sink.close()


def test_json_lines_to_a_full_device_are_a_sink_error() -> None:
    sink = JsonLines(Path("/dev/full"))
    with pytest.raises(SinkError, match="/dev/full cannot be written at frame 0"):
        sink.write(*frame(0))
    sink.close()


MAKE: dict[str, Callable[[Path, bool], Sink]] = {
    "o.mp4": lambda p, over: OverlayVideo(p, fps=5, overwrite=over),
    "o.jsonl": lambda p, over: JsonLines(p, overwrite=over),
}


@pytest.mark.parametrize(("name", "make"), MAKE.items(), ids=MAKE.keys())
def test_a_file_that_exists_is_replaced_only_on_demand(
    tmp_path: Path, name: str, make: Callable[[Path, bool], Sink]
) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(SinkError, match="--overwrite"):
        make(tmp_path / name, False)
    assert (tmp_path / name).read_text() == "precious"
    sink = make(tmp_path / name, True)
    sink.write(*frame(0))
    sink.close()
    assert b"precious" not in (tmp_path / name).read_bytes()


def test_a_folder_with_files_is_used_only_on_demand(tmp_path: Path) -> None:
    (tmp_path / "other.png").write_text("precious")
    with pytest.raises(SinkError, match="not empty"):
        MaskFolder(tmp_path)
    MaskFolder(tmp_path, overwrite=True).write(*frame(0))
    assert (tmp_path / "other.png").read_text() == "precious"


def test_an_unknown_video_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"\.mp4, \.mkv, \.avi"):
        OverlayVideo(tmp_path / "o.gif", fps=5)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="does not exist; make it first"):
        JsonLines(tmp_path / "none" / "o.jsonl")


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


def limited(code: str, folder: Path) -> str:
    """Run code in a process whose files may have 10,000 bytes: writing past it fails as on a full
    disk. The code prints the errors that it meets.
    """
    prelude = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from pathlib import Path\n"
        "from sam2_edge import SinkError\n"
        "from sam2_edge.runtime.sinks.files import write_image, write_text\n"
        "from sam2_edge.runtime.sinks.jsonl import JsonLines\n"
        "from tests.runtime.test_sinks import frame\n"
        "import numpy as np\n"
        f"folder = Path({str(folder)!r})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", prelude + code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    return done.stdout


def test_a_full_disk_ends_json_lines_at_a_whole_line(tmp_path: Path) -> None:
    code = (
        "sink = JsonLines(folder / 'o.jsonl')\n"
        "try:\n"
        "    for index in range(1000): sink.write(*frame(index))\n"
        "except SinkError as error: print(error)\n"
        "finally: sink.close()\n"
    )
    message = limited(code, tmp_path)

    lines = (tmp_path / "o.jsonl").read_text().splitlines()
    assert "cannot be written at frame" in message
    assert len(lines) > 10
    assert [json.loads(line)["frame"] for line in lines] == sorted(
        i // 2 for i in range(len(lines))
    )


def test_a_full_disk_leaves_no_half_image(tmp_path: Path) -> None:
    code = (
        "noise = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)\n"
        "write_image(folder / 'small.png', noise[:20, :20])\n"
        "try: write_image(folder / 'large.png', noise)\n"
        "except SinkError as error: print(error)\n"
    )
    assert "large.png cannot be written" in limited(code, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["small.png"]


def test_a_full_disk_leaves_no_half_text(tmp_path: Path) -> None:
    code = (
        "try: write_text(folder / 'o.json', 20_000 * 'x')\n"
        "except SinkError as error: print(error)\n"
    )
    assert "o.json cannot be written: File too large" in limited(code, tmp_path)
    assert list(tmp_path.iterdir()) == []
