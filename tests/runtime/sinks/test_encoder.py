"""Encoded videos play in browsers, keep any rate and size, and survive full disks and kills."""

from __future__ import annotations

import logging
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sam2_edge import SinkError, SourceError
from sam2_edge.runtime.sinks import codecs, encoder
from sam2_edge.runtime.sinks.encoder import VideoEncoder
from sam2_edge.runtime.sources.video import open_source
from tests.helpers.encoded import numbered_frames

SUFFIXES = (".mp4", ".mkv", ".avi")


def write(path: Path, frames: list[np.ndarray], fps: float = 25) -> Path:
    height, width = frames[0].shape[:2]
    video = VideoEncoder(path, fps=fps, size=(width, height))
    for frame in frames:
        video.write(frame)
    video.close()
    return path


def readable_frames(path: Path) -> int:
    """Number of frames up to the end of a file, or to where it breaks off."""
    count = 0
    with suppress(SourceError):
        for _ in open_source(path):
            count += 1
    return count


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pictures_come_back_with_their_colors(tmp_path: Path, suffix: str) -> None:
    colors = np.array([[200, 60, 30], [30, 190, 70], [40, 50, 220], [90, 90, 90]], np.uint8)
    frame = np.kron(colors[None], np.ones((32, 16, 1), np.uint8))
    path = write(tmp_path / f"a{suffix}", [frame] * 4)
    got = [f.picture[16, 8::16].astype(int) for f in open_source(path)]
    assert len(got) == 4
    assert max(np.abs(colors - g).max() for g in got) <= 9


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_browsers_play_it(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", numbered_frames(3))
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert b"moof" not in path.read_bytes()  # finished as a common .mp4


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (66.6667, Fraction(200, 3)),
        (29.97, Fraction(2997, 100)),
        (30000 / 1001, Fraction(30000, 1001)),
        (1000 / 3, Fraction(1000, 3)),
        (999.9, None),
        (123.456789, None),
        (0.1, Fraction(1, 10)),
        (1e-9, None),
    ],
)
def test_any_rate_is_kept(tmp_path: Path, suffix: str, fps: float, rate: Fraction | None) -> None:
    path = write(tmp_path / f"a{suffix}", numbered_frames(3), fps)
    with av.open(str(path)) as video:
        found = video.streams.video[0].average_rate
        assert sum(1 for _ in video.decode(video=0)) == 3
    if rate is not None:
        assert found == rate
    elif fps > 1:
        assert float(found) == pytest.approx(fps, rel=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (33, 47), (48, 1), (47, 64)])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_pixel_of_an_odd_size_is_lost(
    tmp_path: Path, suffix: str, size: tuple[int, int]
) -> None:
    path = write(tmp_path / f"a{suffix}", [np.full((*size, 3), 99, np.uint8)] * 3)
    shapes = {f.picture.shape[:2] for f in open_source(path)}
    assert shapes == {size if suffix == ".avi" else (size[0] + size[0] % 2, size[1] + size[1] % 2)}


def test_a_picture_that_is_too_wide_names_the_limit_and_another_format(tmp_path: Path) -> None:
    wide = np.zeros((4, 16400, 3), np.uint8)
    with pytest.raises(SinkError, match=r"16400 x 4 .* up to 16384 pixels; .*write \.avi"):
        write(tmp_path / "a.mp4", [wide])
    assert not (tmp_path / "a.mp4").exists()
    assert len(list(open_source(write(tmp_path / "a.avi", [wide])))) == 1
    with pytest.raises(SinkError, match="up to 65500 pixels; make the source smaller, or write m"):
        write(tmp_path / "b.avi", [np.zeros((4, 65501, 3), np.uint8)])


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files of up to 60,000 bytes, as on a disk that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_is_one_error_and_keeps_what_is_written(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0)
    video = VideoEncoder(tmp_path / f"a{suffix}", fps=2, size=(64, 48))
    with pytest.raises(SinkError, match=r"cannot be written after \d+ frames: .*ends there"):
        for _ in range(200):
            video.write(noise.integers(0, 256, (48, 64, 3), np.uint8))
    video.close()
    assert readable_frames(tmp_path / f"a{suffix}") >= 3


KILLED = """
import os, sys, pathlib, numpy as np
from sam2_edge.runtime.sinks.encoder import VideoEncoder
video = VideoEncoder(pathlib.Path(sys.argv[1]), fps=5, size=(64, 48))
noise = np.random.default_rng(0)
for _ in range(35):
    video.write(noise.integers(0, 256, (48, 64, 3), np.uint8))
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_killed_writer_leaves_a_readable_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    done = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert done.returncode == -9
    assert readable_frames(path) >= 20

    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + 7])  # as after a power failure
    assert readable_frames(path) >= 9


def test_without_an_encoder_for_h264_another_is_taken_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(codecs.CODECS, "h264", (codecs.Codec("none", (2, 99)),))
    with caplog.at_level(logging.WARNING):
        path = write(tmp_path / "a.mp4", numbered_frames(4), 999.9)
    assert "no encoder for H.264" in caplog.text
    assert len(list(open_source(path))) == 4


def boxes(path: Path) -> list[str]:
    """Types of the parts of an .mp4 file."""
    data, start, found = path.read_bytes(), 0, []
    while start < len(data):
        size = int.from_bytes(data[start : start + 4], "big")
        found.append(data[start + 4 : start + 8].decode())
        start += size if size != 1 else int.from_bytes(data[start + 8 : start + 16], "big")
    return found


def write_index_first(path: Path, frames: list[np.ndarray], codec: str | None = None) -> None:
    height, width = frames[0].shape[:2]
    size = (width, height)
    video = VideoEncoder(path, fps=30000 / 1001, size=size, codec=codec, index_first=True)
    for frame in frames:
        video.write(frame)
    video.close()


@pytest.mark.parametrize("name", ["a.mp4", "10:00.mp4", "caf\udce9.MP4", "concat:b.mp4"])
def test_the_index_can_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    write_index_first(path, numbered_frames(9))
    assert [b for b in boxes(path) if b != "free"] == ["ftyp", "moov", "mdat"]
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert len(list(open_source(path))) == 9
    with av.open(path.open("rb")) as video:
        stream = video.streams.video[0]
        assert stream.average_rate == Fraction(30000, 1001)
        context = stream.codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)


def test_an_index_that_cannot_be_moved_stays_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encoder, "atomic_file", full)
    write_index_first(tmp_path / "a.mp4", numbered_frames(9))
    assert boxes(tmp_path / "a.mp4")[-1] == "moov"
    assert len(list(open_source(tmp_path / "a.mp4"))) == 9


@pytest.mark.parametrize("codec", codecs.CODECS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_codec_is_written_to_the_files_that_it_is_for(
    tmp_path: Path, codec: str, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".avi" and codec not in ("mpeg4", "mjpeg"):
        with pytest.raises(SinkError, match="is not for this file; .avi takes mpeg4, mjpeg"):
            write_index_first(path, numbered_frames(5), codec)
        return
    write_index_first(path, numbered_frames(5), codec)
    with av.open(str(path)) as video:
        context = video.streams.video[0].codec_context
        assert context.name == codec
        assert codec != "hevc" or suffix != ".mp4" or context.codec_tag == "hvc1"
        assert sum(1 for _ in video.decode(video=0)) == 5


def test_an_unknown_codec_lists_those_that_can_be_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(codecs.CODECS, "vp9", (codecs.Codec("none", (2, 99)),))
    with pytest.raises(SinkError, match="codec 'h265' is unknown; .mp4 takes h264, hevc, mpeg4, m"):
        codecs.find_codec(tmp_path / "a.mp4", "h265")
    with pytest.raises(SinkError, match="codec 'vp9' has no encoder here"):
        codecs.find_codec(tmp_path / "a.mp4", "vp9")


def test_a_picture_that_is_too_small_for_a_codec_names_the_limit(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="16 x 16 .* from 32 .*; give another codec, or write"):
        VideoEncoder(tmp_path / "a.mp4", fps=5, size=(16, 16), codec="hevc")


@pytest.mark.parametrize("name", ["10:00.mp4", "caf\udce9.mkv", "%d.avi", "-i.mp4"])
def test_names_are_not_interpreted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path(name), numbered_frames(2))
    assert [p.name for p in tmp_path.iterdir()] == [name]
