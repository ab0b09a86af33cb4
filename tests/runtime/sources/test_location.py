"""What a source is, is decided by looking first; what is printed of it holds no credentials."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sam2_edge.runtime.sources.location import SourceKind, locate, redact

KINDS = {
    "0": SourceKind.NUMBER,
    "12345": SourceKind.NUMBER,
    "csi": SourceKind.CSI,
    "csi:1": SourceKind.CSI,
    "rtsp://camera/stream": SourceKind.STREAM,
    "RTSP://camera/stream": SourceKind.STREAM,
    "Http://camera/a.mjpg": SourceKind.STREAM,
    "videotestsrc ! appsink": SourceKind.PIPELINE,
    "/dev/video77": SourceKind.DEVICE,
    "/dev/v4l/by-id/none": SourceKind.DEVICE,
    "/dev/null": SourceKind.DEVICE,
    "/dev/shm/none.mp4": SourceKind.FILE,  # noqa: S108 # does not exist
    "10:00.mp4": SourceKind.FILE,
    "concat:a|b": SourceKind.FILE,
    "pipe:0": SourceKind.FILE,
    "-i.mp4": SourceKind.FILE,
    "²": SourceKind.FILE,
    "a\0b": SourceKind.FILE,
    "": SourceKind.FOLDER,
}


@pytest.mark.parametrize(("text", "kind"), KINDS.items())
def test_what_does_not_exist_is_told_by_its_spelling(
    text: str, kind: SourceKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    location = locate(text)
    assert (location.kind, location.text) == (kind, text)
    assert location.is_camera == (kind not in (SourceKind.FILE, SourceKind.FOLDER))


@pytest.mark.parametrize("name", ["0", "12345", "csi", "csi:1", "a ! b", "10:00.mp4", "file:a"])
def test_what_exists_is_what_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    assert locate(name).kind is SourceKind.FILE
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    assert locate(name).kind is SourceKind.FOLDER


def test_a_link_to_a_device_is_a_device_and_a_pipe_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cam").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    assert locate(tmp_path / "cam").kind is SourceKind.DEVICE
    assert locate(tmp_path / "pipe").kind is SourceKind.FILE


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "a b.mp4").touch()
    location = locate(f"FILE://{tmp_path}/a%20b.mp4")
    assert (location.kind, location.path) == (SourceKind.FILE, tmp_path / "a b.mp4")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://camera:554/stream", "rtsp://camera:554/stream"),
        ("rtsp://admin:hush@camera/s1", "rtsp://***@camera/s1"),
        ("RTSP://admin:hu@sh/h@camera/s1", "RTSP://***@camera/s1"),
        ("rtsp://hush@camera", "rtsp://***@camera"),
        ("rtsp://u:hu sh@camera/s", "rtsp://***@camera/s"),
        ("http://camera/a?user=x&password=hush", "http://camera/a?***"),
        ("https://camera/a?t=hush#hush", "https://camera/a?***"),
        ("rtsp://camera/user=a&password=hush", "rtsp://camera/user=a&password=***"),
        ("rtsp://camera/user=a_passwd=hush_channel=1", "rtsp://camera/user=a_passwd=***"),
        (
            "rtspsrc location=rtsp://u:hush@h/s ! decodebin ! appsink",
            "rtspsrc ! decodebin ! appsink",
        ),
        (
            'rtspsrc user-pw="hush ! hush" ! video/x-raw,a=b ! appsink',
            "rtspsrc ! video/x-raw ! appsink",
        ),
        ("rtspsrc user-pw='hu\\'sh ! hush ! appsink", "rtspsrc"),
        ("clips/a@b?password=1.mp4", "clips/a@b?password=1.mp4"),
        ("7", "7"),
    ],
)
def test_credentials_are_not_shown(source: str, shown: str) -> None:
    assert redact(source) == shown
    assert str(locate(source)) == shown


def test_a_url_that_became_a_path_is_still_a_stream_without_credentials() -> None:
    location = locate(Path("rtsp://u:hush@camera/s"))
    assert location.kind is SourceKind.STREAM
    assert str(location) == "rtsp:/***@camera/s"
