"""Frame k by its number is frame k of the video read from its start, bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2_edge import SourceError
from sam2_edge.runtime.sources.frame_access import NumberedFrames
from sam2_edge.runtime.sources.video import open_source
from tests.helpers.encoded import copy_from, encode, numbered_frames

FORMS: dict[str, dict[str, Any]] = {
    "b-frames.mp4": {"options": {"bf": "3", "g": "12"}},
    "b-frames.ts": {"options": {"bf": "3", "g": "12"}},
    "open.mkv": {"options": {"bf": "3", "g": "12", "x264-params": "open-gop=1"}},
    "open.ts": {"options": {"bf": "3", "g": "12", "x264-params": "open-gop=1"}},
    "open.mpg": {"codec": "mpeg2video", "options": {"bf": "2", "g": "9"}},
    "long.mp4": {"options": {"bf": "2", "g": "999"}},
    "refresh.mkv": {"options": {"x264-params": "intra-refresh=1:keyint=12"}},
    "variable.mkv": {"options": {"g": "9"}, "times": [n * n for n in range(60)]},
    "intra.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "bare.h264": {"options": {"bf": "2", "g": "9"}},
}


def check(path: Path) -> None:
    whole = [frame.picture for frame in open_source(path)]
    video = NumberedFrames(path)
    assert len(video) == len(whole) > 30
    order = np.random.default_rng(0).permutation(len(whole))[:16].tolist()
    for number in [*order, 29, 28, 27, 28, 0, len(whole) - 1]:
        np.testing.assert_array_equal(video.read(number), whole[number])
    video.close()


@pytest.mark.parametrize("name", FORMS)
def test_frames_by_number_are_those_of_the_whole(tmp_path: Path, name: str) -> None:
    check(encode(tmp_path / name, numbered_frames(60, (32, 48)), **FORMS[name]))


@pytest.mark.parametrize("first", [0, 12, 17, 30])
@pytest.mark.parametrize("name", ["open.mkv", "b-frames.mp4", "b-frames.ts"])
def test_cut_clips_keep_their_numbers(tmp_path: Path, name: str, first: int) -> None:
    whole = encode(tmp_path / name, numbered_frames(80, (32, 48)), **FORMS[name])
    check(copy_from(tmp_path / f"cut{whole.suffix}", whole, first, shift=9000))


def test_joined_clips_without_rising_times_keep_their_numbers(tmp_path: Path) -> None:
    clip = encode(tmp_path / "a.ts", numbered_frames(20, (32, 48)))
    (tmp_path / "b.ts").write_bytes(2 * clip.read_bytes())
    check(tmp_path / "b.ts")


def test_a_key_frame_is_reached_without_decoding_what_precedes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "a.mp4", numbered_frames(60), options={"bf": "2", "g": "10"})
    video = NumberedFrames(path)
    decoded: list[object] = []
    decode = video._decoder._decode
    monkeypatch.setattr(video._decoder, "_decode", lambda p: decoded.append(p) or decode(p))
    video.read(51)
    assert len(decoded) < 20


def test_frames_that_are_missing_are_told(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", numbered_frames(40), codec="mjpeg", pixels="yuvj420p")
    video = NumberedFrames(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"frame \d+ of .* cannot be decoded"):
        video.read(39)
