"""Videos in the forms that people have are read to their end, and damage needs evidence."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from sam2_edge import PromptError, SourceError
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.sources import FrameRange
from sam2_edge.runtime.sources.decoder import _Readable
from sam2_edge.runtime.sources.prompt_file import check_prompts
from sam2_edge.runtime.sources.video import open_source
from tests.helpers.encoded import copy_from, cut_bytes, encode, numbered_frames

LONGER = 80
"""Above the number of frames that are counted when a video is opened."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    frames = numbered_frames(LONGER, (32, 32))
    reordered = {"bf": "3", "g": "12"}
    encode(folder / "plain.mp4", frames, options=reordered)
    encode(folder / "fast.mp4", frames, container={"movflags": "faststart"})
    encode(folder / "plain.mkv", frames, options=reordered)
    encode(folder / "plain.ts", frames, options=reordered)
    encode(folder / "plain.avi", frames, codec="mpeg4")
    encode(folder / "plain.mpg", frames, codec="mpeg2video")
    encode(
        folder / "pause.mkv", frames, times=[4 * n if n < 40 else 4 * n + 900 for n in range(80)]
    )
    encode(folder / "crowded.mkv", frames, times=list(range(LONGER)))
    encode(folder / "sound.mkv", frames, audio_s=9)
    encode(folder / "sound.mp4", frames, audio_s=9)
    copy_from(folder / "late.mp4", folder / "plain.mp4", 0, shift=30_000)
    copy_from(folder / "copied.mkv", folder / "plain.mkv", 12)
    copy_from(folder / "copied.mp4", folder / "plain.mp4", 12)
    return folder


@pytest.mark.parametrize(
    ("name", "count"),
    {
        "plain.mp4": 80,
        "plain.mkv": 80,
        "plain.ts": 80,
        "plain.avi": 80,
        "plain.mpg": 80,
        "pause.mkv": 80,  # declares 305 by its duration
        "crowded.mkv": 80,  # declares 20
        "sound.mkv": 80,
        "sound.mp4": 80,
        "late.mp4": 80,
        "copied.mkv": 68,
        "copied.mp4": 68,
    }.items(),
)
def test_every_frame_is_read_and_no_complaint_made(clips: Path, name: str, count: int) -> None:
    source = open_source(clips / name)
    assert [f.index for f in source] == list(range(count))
    assert source.limit is None


def test_a_prompt_beyond_the_declared_count_is_refused_only_by_the_real_end(clips: Path) -> None:
    source = open_source(clips / "crowded.mkv")
    assert source.frames is not None
    assert source.frames < 40
    check_prompts({70: [Prompt(1, points=[(1, 1)])]}, source.start, source.limit)
    limited = open_source(clips / "crowded.mkv", FrameRange(0, 60))
    with pytest.raises(PromptError, match="frame 70"):
        check_prompts({70: [Prompt(1, points=[(1, 1)])]}, limited.start, limited.limit)


def test_a_short_clip_is_counted(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", numbered_frames(9), times=[90 * n for n in range(9)])
    assert open_source(path).frames == 9


@pytest.mark.parametrize("name", ["fast.mp4", "plain.mkv", "plain.ts", "plain.avi", "plain.mpg"])
def test_a_file_that_is_cut_off_is_told_after_its_frames(clips: Path, name: str) -> None:
    frames = []
    with pytest.raises(SourceError) as told:
        for frame in open_source(cut_bytes(clips / name, 0.6)):
            frames.append(frame)  # noqa: PERF402 # the frames before the error count
    assert 20 < len(frames) < 75
    shown = rf"cut\S* ends after {len(frames)} frames and is truncated .*--frames 0:{len(frames)}$"
    assert re.search(shown, str(told.value))


def test_bytes_that_changed_are_told_at_the_end(clips: Path) -> None:
    data = bytearray((clips / "plain.mkv").read_bytes())
    for place in range(len(data) // 3, len(data) // 2, 97):
        data[place] ^= 0x55
    (clips / "changed.mkv").write_bytes(data)
    frames = open_source(clips / "changed.mkv")
    with pytest.raises(
        SourceError, match=r"changed\.mkv ends after \d+ frames and is truncated or"
    ):
        list(frames)


def test_a_recording_that_begins_between_key_frames_is_read(clips: Path) -> None:
    data = (clips / "plain.ts").read_bytes()
    (clips / "joined.ts").write_bytes(data[188 * 40 :] + data)
    count = len(list(open_source(clips / "joined.ts")))
    assert 80 < count < 160


@pytest.mark.parametrize("content", ["#EXTM3U\n", "ffconcat version 1.0\nfile {other}\n", "v=0\n"])
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a.ffconcat", "a.sdp", "a.txt"])
def test_lists_of_other_files_are_no_videos(clips: Path, content: str, name: str) -> None:
    text = content.format(other=clips / "plain.mp4")
    if content.startswith("#"):
        text += f"#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{clips / 'plain.ts'}\n#EXT-X-ENDLIST\n"
    (clips / name).write_text(text)
    with pytest.raises(SourceError, match=rf"{name} cannot be opened as a video"):
        open_source(clips / name)


@pytest.mark.parametrize(
    "name", ["10:00.mp4", "-i.mp4", "file:a.mp4", "%d.mp4", "concat:a|b.mp4", "caf\udce9.mp4"]
)
def test_names_are_not_interpreted(
    clips: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes((clips / "plain.mp4").read_bytes())
    assert len(list(open_source(name))) == LONGER
    assert len(list(open_source(Path(name)))) == LONGER


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (make_pipe, "is a named pipe"),
    "an image": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), "cannot be opened"),
    "a loop of links": (lambda p: p.symlink_to(p), "cannot be opened"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_video_file_is_refused(
    make: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    make(tmp_path / "a.mp4")
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["a" * 300 + ".mp4", "nul\0.mp4", "rtsp://u:hush@camera/s", "0"])
def test_what_does_not_exist_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as refused:
        open_source(name)
    assert "hush" not in str(refused.value)


def test_images_and_animations_that_are_not_read_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.webp").write_bytes(b"RIFF\x04\0\0\0WEBP")
    with pytest.raises(SourceError, match=r"a\.webp is an image .*segment the image"):
        open_source(tmp_path / "a.webp")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        output.mux([*stream.encode(silence), *stream.encode(None)])
    with pytest.raises(SourceError, match="has no video"):
        open_source(tmp_path / "a.mp4")


def test_a_frame_keeps_its_own_size(tmp_path: Path) -> None:
    small = encode(tmp_path / "a.ts", numbered_frames(5, (32, 32)))
    large = encode(tmp_path / "b.ts", numbered_frames(5, (48, 64)))
    (tmp_path / "c.ts").write_bytes(small.read_bytes() + large.read_bytes())
    shapes = [f.picture.shape for f in open_source(tmp_path / "c.ts")]
    assert shapes == [(32, 32, 3)] * 5 + [(48, 64, 3)] * 5


@pytest.mark.parametrize(
    ("matrix", "levels"), [(1, 1), (5, 1), (1, 2), (5, 2)], ids=["709", "601", "709f", "601f"]
)
def test_colors_are_those_that_were_encoded(tmp_path: Path, matrix: int, levels: int) -> None:
    colors = np.array([[200, 60, 30], [30, 190, 70], [40, 50, 220], [90, 90, 90]], np.uint8)
    frame = np.kron(colors[None], np.ones((32, 16, 1), np.uint8))
    path = encode(tmp_path / "a.mkv", [frame] * 3, options={"qp": "1"}, color=(matrix, levels))
    got = list(open_source(path))[1].picture[16, 8::16]
    assert np.abs(got.astype(int) - colors).max() <= 5


@pytest.mark.parametrize(
    ("codec", "pixels"),
    [
        ("libx264", "yuv420p10le"),
        ("libx264", "gray"),
        ("ffv1", "gray16le"),
        ("prores_ks", "yuva444p10le"),
    ],
)
def test_other_depths_and_alpha_are_converted(tmp_path: Path, codec: str, pixels: str) -> None:
    frame = np.full((32, 48, 3), 150, np.uint8)
    path = encode(
        tmp_path / "a.mov" if "prores" in codec else tmp_path / "a.mkv",
        [frame] * 2,
        codec=codec,
        pixels=pixels,
        color=(2, 2 if pixels == "gray" else 0),
    )
    for found in open_source(path):
        assert found.picture.shape == frame.shape
        assert np.abs(found.picture.astype(int) - 150).max() <= 4


def test_an_odd_size_is_kept(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", numbered_frames(3, (33, 47)), codec="ffv1", pixels="yuv420p")
    assert {f.picture.shape for f in open_source(path)} == {(33, 47, 3)}


def test_an_interlaced_video_is_decoded(tmp_path: Path) -> None:
    frames = numbered_frames(6, (64, 96))
    path = encode(
        tmp_path / "a.mkv",
        frames,
        options={"flags": "+ildct+ilme", "x264-params": "tff=1", "qp": "4"},
    )
    for got, frame in zip(open_source(path), frames, strict=True):
        assert np.abs(got.picture.astype(int) - frame).mean() < 25


TURNS = {
    "quarter": ((0, 1, -1, 0), lambda p: cv2.rotate(p, cv2.ROTATE_90_CLOCKWISE)),
    "half": ((-1, 0, 0, -1), lambda p: cv2.rotate(p, cv2.ROTATE_180)),
    "three": ((0, -1, 1, 0), lambda p: cv2.rotate(p, cv2.ROTATE_90_COUNTERCLOCKWISE)),
    "mirror": ((-1, 0, 0, 1), lambda p: cv2.flip(p, 1)),
    "flip": ((1, 0, 0, -1), lambda p: cv2.flip(p, 0)),
    "diagonal": ((0, 1, 1, 0), cv2.transpose),
}


@pytest.mark.parametrize(("matrix", "turn"), TURNS.values(), ids=TURNS)
def test_a_video_is_turned_upright(
    clips: Path,
    tmp_path: Path,
    matrix: tuple[int, ...],
    turn: Callable[[np.ndarray], np.ndarray],
) -> None:
    data = bytearray((clips / "plain.mp4").read_bytes())
    place = data.index(b"tkhd") + 44  # the matrix of the track's header
    a, b, c, d = (number << 16 for number in matrix)
    numbers = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4")
    data[place : place + 36] = numbers.tobytes()
    (tmp_path / "turned.mp4").write_bytes(data)
    plain = next(iter(open_source(clips / "plain.mp4"))).picture
    turned = next(iter(open_source(tmp_path / "turned.mp4"))).picture
    np.testing.assert_array_equal(turned, turn(plain))


def test_the_default_stream_is_read_and_a_cover_is_none(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        streams = [output.add_stream("mjpeg", rate=5) for _ in range(3)]
        flags = av.stream.Disposition
        for number, kind in enumerate((flags.attached_pic.value, 0, flags.default.value)):
            stream = streams[number]
            stream.width, stream.height, stream.pix_fmt = 32, 16 * (number + 1), "yuvj420p"
            stream.disposition = kind
        for stream in streams:
            frame = av.VideoFrame(stream.width, stream.height, "yuvj420p")
            output.mux([*stream.encode(frame), *stream.encode(None)])
    assert [f.picture.shape for f in open_source(tmp_path / "a.mkv")] == [(48, 32, 3)]


def test_an_interrupted_iteration_closes_the_file(clips: Path) -> None:
    frames = iter(open_source(clips / "plain.mp4"))
    next(frames)
    files = {link.resolve().name for link in Path("/proc/self/fd").iterdir()}
    assert "plain.mp4" in files
    frames.close()
    files = {link.resolve().name for link in Path("/proc/self/fd").iterdir()}
    assert "plain.mp4" not in files


def test_a_picture_belongs_to_its_reader(tmp_path: Path) -> None:
    frames = numbered_frames(4, (33, 47))
    path = encode(tmp_path / "a.mov", frames, codec="rawvideo", pixels="bgr24")
    for found, frame in zip(open_source(path), frames, strict=True):
        np.testing.assert_array_equal(found.picture, frame)
        assert found.picture.flags.c_contiguous
        found.picture[:] = 0


def test_a_seek_out_of_the_file_is_an_error_code(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(bytes(9))
    with (tmp_path / "a.mp4").open("rb") as file:
        readable = _Readable(file)
        assert readable.seek(5, 0) == 5
        assert readable.seek(-5, 0) < 0  # PyAV would print the traceback of an exception
        assert readable.seek(2**63, 0) < 0
        assert readable.tell() == 5
