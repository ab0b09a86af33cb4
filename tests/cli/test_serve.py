"""`sam2-edge serve`: errors before the loop starts."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from sam2_edge import CameraLoop, PromptError, Sam2EdgeError
from sam2_edge.cli import serve
from sam2_edge.cli.serve import _announce
from sam2_edge.serve import app
from sam2_edge.serve.hub import Hub
from tests.helpers.cameras import picture
from tests.helpers.cli import call
from tests.helpers.clips import write_video


def test_an_address_in_use_is_an_error() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        message = rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use; choose another"
        with pytest.raises(Sam2EdgeError, match=message):
            call("serve", "synth", "--bundle", "nano", "--port", port)


@pytest.mark.parametrize("host", ["300.1.1.1", "192.0.2.1", "a..b"])
def test_an_address_of_another_machine_is_an_error_about_the_address(host: str) -> None:
    options = ["--host", host, "--port", 0, "--token", "0123456789abcdef"]
    with pytest.raises(Sam2EdgeError, match=f"cannot listen on {host}:0: .*; give --host an addre"):
        call("serve", "synth", "--bundle", "nano", *options)


@pytest.mark.parametrize(
    ("options", "waits"),
    [([], True), (["--object", 1, "--point", "5,5"], False), (["--loop"], True)],
)
def test_a_file_waits_on_its_first_frame_unless_prompts_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[Any], waits: bool
) -> None:
    video = write_video(tmp_path / "clip.mp4", [picture(value) for value in range(3)])
    loops: list[CameraLoop] = []
    monkeypatch.setattr(serve, "run_loop", lambda stats, *_: loops.append(stats.loop))
    call("serve", video, "--bundle", "nano", "--port", 0, *options)
    assert [loop.paused for loop in loops] == [waits]


def test_each_of_several_files_waits_and_has_its_own_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_video(tmp_path / "clip.mp4", [picture(value) for value in range(3)])
    made: list[list[Hub]] = []
    loops: list[CameraLoop] = []
    make_app = app.make_app

    def keep(hubs: list[Hub], *others: Any) -> Any:
        made.append(hubs)
        return make_app(hubs, *others)

    monkeypatch.setattr(app, "make_app", keep)
    monkeypatch.setattr(
        serve, "run_hub", lambda hub, *_: loops.extend(hub[name] for name in hub.names)
    )
    call("serve", video, "live=synth", "--bundle", "nano", "--port", 0, "--loop")
    assert [(hub.name, hub.streams) for hub in made[0]] == [
        ("clip", ("clip", "live")),
        ("live", ("clip", "live")),
    ]
    assert [(loop.name, loop.paused) for loop in loops] == [("clip", True), ("live", False)]


def test_only_a_file_can_start_over() -> None:
    with pytest.raises(Sam2EdgeError, match="--loop starts a file over at its end, and synth is a"):
        call("serve", "synth", "--bundle", "nano", "--loop")


def test_an_object_id_too_large_for_a_mask_is_rejected() -> None:
    with pytest.raises(PromptError, match="object id 300"):
        call("serve", "synth", "--bundle", "nano", "--object", 300, "--point", "5,5")


def test_an_empty_token_is_not_taken_for_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM2_EDGE_TOKEN", "")
    with pytest.raises(Sam2EdgeError, match="SAM2_EDGE_TOKEN is empty"):
        call("serve", "synth", "--bundle", "nano")
    with pytest.raises(Sam2EdgeError, match="a token of 0 characters"):
        call("serve", "synth", "--bundle", "nano", "--token", "")


def test_a_generated_token_is_not_written_to_the_journal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status = os.fstat(2)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)  # pytest's own has no descriptor
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    with pytest.raises(Sam2EdgeError, match=r"--host 0\.0\.0\.0 requires a token, and a generated"):
        call("serve", "synth", "--bundle", "nano", "--host", "0.0.0.0")  # noqa: S104


@pytest.mark.parametrize("own", ["198.51.100.7", None])
def test_the_printed_address_is_one_that_others_can_open(
    own: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Probe(socket.socket):
        def connect(self, _address: object) -> None:
            if own is None:
                raise OSError("Network is unreachable")

        def getsockname(self) -> tuple[str, int]:
            return str(own), 1

    known = {"robot": "198.51.100.7", "shy": "127.0.1.1"}
    monkeypatch.setattr(socket, "socket", Probe)
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda name, _port: [(2, 1, 6, "", (known[name], 0))]
    )
    for name in known:
        monkeypatch.setattr(socket, "gethostname", lambda name=name: name)
        _announce("0.0.0.0", 8080, "t", is_generated=True)  # noqa: S104
    shown = capsys.readouterr().err.splitlines()
    by_address, by_name = f"http://{own}:8080/?token=t", "http://robot:8080/?token=t"
    if own is None:
        assert shown == [f"open {by_name}", "open http://shy:8080/?token=t"]
    else:
        assert shown == [f"open {by_address}", f"  or {by_name}", f"open {by_address}"]


def test_only_a_generated_token_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    _announce("::1", 8080, "a+b&c#d/e", is_generated=False)
    _announce("::1", 8080, "a+b&c#d/e", is_generated=True)
    given, generated = capsys.readouterr().err.splitlines()
    assert given == "open http://[::1]:8080/ and add ?token= and your token, percent-encoded"
    assert generated == "open http://[::1]:8080/?token=a%2Bb%26c%23d%2Fe"
