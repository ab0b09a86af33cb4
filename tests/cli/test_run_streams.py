"""`sam2-edge run` with several sources: names, outputs, prompts, logs and faults."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from sam2_edge import PromptError, Sam2EdgeError
from sam2_edge.cli.stream_names import stream_names
from sam2_edge.cli.streams import Heartbeats
from sam2_edge.runtime.streaming.systemd import Watchdog
from tests.helpers.cli import call, lines_of, video
from tests.helpers.clips import count_frames


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    (tmp_path / "other").mkdir()
    return [
        video(tmp_path / "clip.avi", frames=5),
        video(tmp_path / "other" / "clip.avi", frames=3),
    ]


def prompts_file(folder: Path, *entries: dict[str, object]) -> Path:
    path = folder / "prompts.json"
    path.write_text(json.dumps([{"frame": 0, "points": [[34, 38]], **entry} for entry in entries]))
    return path


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["0", "1"], ["camera0", "camera1"]),
        (["door=0", "1"], ["door", "camera1"]),
        (["door=0"], ["door"]),
        (["csi:1", "/dev/video2"], ["csi-1", "video2"]),
        (
            ["rtsp://me:secret@cam.local:554/s?key=1", "rtsp://cam.local/t"],
            ["cam.local", "cam.local-2"],
        ),
        (["a/Clip.mp4", "clip=b.mp4", "clip.mp4"], ["Clip-2", "clip", "clip-3"]),
        (["videotestsrc name=a ! appsink", "synth:3"], ["pipeline", "synth-3"]),
        (["rtsp://[half", "日本.mp4"], ["stream", "stream-2"]),
    ],
)
def test_streams_have_the_names_given_or_telling_ones(sources: list[str], names: list[str]) -> None:
    found = stream_names(sources)
    assert found is not None
    assert list(found) == names
    assert [source.partition("=")[2] if "=" in source[:6] else source for source in sources] == (
        list(found.values())
    )


def test_one_source_has_no_name_and_a_file_may_have_an_equals_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    video(tmp_path / "a=b.avi", frames=1)
    assert stream_names(["a=b.avi"]) is None
    assert stream_names(["rtsp://cam/?a=b"]) is None


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["..=0", "1"], "'..' cannot be the name of a stream"),
        (["a=0", "A=1"], "the name a is given to two sources"),
        (["0", "door=0"], "0 is given twice, and a camera number opens once at a time"),
    ],
)
def test_names_and_devices_are_checked(sources: list[str], message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        stream_names(sources)


def test_each_stream_has_its_own_outputs(clips: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    prompts = prompts_file(
        tmp_path, {"stream": "clip", "object": 1}, {"stream": "yard", "object": 7, "name": "cup"}
    )
    options = ["--bundle", "nano", "--prompts", prompts, "--unpaced", "--log-json"]
    options += ["--video", out / "o.mp4", "--jsonl", out / "j", "--masks", out / "m"]
    call("run", clips[0], f"yard={clips[1]}", *options)
    for name, frames, object_id in (("clip", 5, 1), ("yard", 3, 7)):
        assert count_frames(out / f"o-{name}.mp4") == frames
        assert len(list((out / "m" / name).rglob("*.png"))) == frames
        (lines,) = (out / "j" / name).iterdir()
        found = [(line["stream"], line["frame"], line["object"]) for line in lines_of(lines)]
        assert found == [(name, frame, object_id) for frame in range(frames)]


def test_lines_and_datagrams_and_log_name_their_stream(
    clips: list[Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    prompts = prompts_file(
        tmp_path, {"stream": "clip", "object": 1}, {"stream": "clip-2", "object": 1}
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        options: Sequence[object] = ["--udp", f"127.0.0.1:{receiver.getsockname()[1]}"]
        options = [*options, "--bundle", "nano", "--prompts", prompts, "--unpaced", "--jsonl", "-"]
        call("run", *clips, *options, "--log-json")
        sent = [json.loads(receiver.recv(65536)) for _ in range(8)]
    out, err = capfd.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    expected = [("clip", frame) for frame in range(5)] + [("clip-2", frame) for frame in range(3)]
    assert sorted((line["stream"], line["frame"]) for line in lines) == expected
    assert sorted((line["stream"], line["frame"]) for line in sent) == expected
    ended = {line["stream"]: line for line in map(json.loads, err.splitlines())}
    assert {name: line["tracked"] for name, line in ended.items()} == {"clip": 5, "clip-2": 3}
    assert ended["clip"]["message"].startswith("clip: ended: ")


def test_a_stream_that_fails_ends_alone_and_is_told_at_the_end(
    clips: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prompts = prompts_file(
        tmp_path,
        {"stream": "good", "object": 1},
        {"stream": "bad", "object": 1, "points": [[999, 1]]},
    )
    out = tmp_path / "o.jsonl"
    options = ["--bundle", "nano", "--prompts", prompts, "--unpaced", "--jsonl", out]
    with (
        caplog.at_level(logging.INFO, "sam2_edge"),
        pytest.raises(Sam2EdgeError, match=r"1 of 2 streams failed: bad: point 999,1 is outside"),
    ):
        call("run", f"bad={clips[1]}", f"good={clips[0]}", *options)
    assert len(lines_of(tmp_path / "o-good.jsonl")) == 5
    assert not (tmp_path / "o-bad.jsonl").exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"object": 1}, "prompts.json: 0: there is no stream; give one of: clip, clip-2"),
        (
            {"object": 1, "stream": "roof"},
            "0: there is no stream 'roof'; give one of: clip, clip-2",
        ),
        ({"object": 300, "stream": "clip"}, "object id 300 does not fit"),
    ],
)
def test_prompts_name_a_stream_that_exists(
    entry: dict[str, object], message: str, clips: list[Path], tmp_path: Path
) -> None:
    options = ["--bundle", "nano", "--prompts", prompts_file(tmp_path, entry)]
    with pytest.raises(PromptError, match=message):
        call("run", *clips, *options, "--masks", tmp_path / "m")


def test_a_prompt_that_names_a_stream_needs_streams(clips: list[Path], tmp_path: Path) -> None:
    path = prompts_file(tmp_path, {"object": 1, "stream": "clip"})
    with pytest.raises(PromptError, match="stream is 'clip', but there is one source without a"):
        call("run", clips[0], "--bundle", "nano", "--prompts", path)


def test_typed_prompts_are_for_one_source(clips: list[Path]) -> None:
    with pytest.raises(click.UsageError, match=r'"stream": "clip" in each entry'):
        call("run", *clips, "--bundle", "nano", "--point", "3,4")


def test_the_watchdog_is_pinged_once_every_running_stream_is_alive() -> None:
    class Pings(Watchdog):
        count = 0

        def ping(self) -> None:
            self.count += 1

    pings, running = Pings(), ["a", "b"]
    beats = Heartbeats(pings, running)
    for _ in range(3):
        beats.beat("a")
    assert pings.count == 0
    beats.beat("b")
    assert pings.count == 1
    running.remove("b")  # it has ended
    beats.beat("a")
    assert pings.count == 2
