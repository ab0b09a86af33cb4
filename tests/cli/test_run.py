"""`sam2-edge run` and its outputs: rotation, datagrams, real time, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from sam2_edge import PromptError, SinkError
from sam2_edge.cli.main import cli
from sam2_edge.runtime.results import FrameResult, ObjectResult
from sam2_edge.runtime.sinks.jsonl import JsonLines, json_record
from sam2_edge.runtime.sinks.masks import MaskFolder
from sam2_edge.runtime.sinks.rotation import RotatingSink, RotationPolicy
from sam2_edge.runtime.sinks.udp import UdpJson
from sam2_edge.runtime.sinks.video import RealTimeVideo
from sam2_edge.runtime.sources import SourceFrame
from sam2_edge.runtime.streaming.systemd import Watchdog, notify
from tests.helpers.clips import moving_shapes

SCRIPT = Path(sys.executable).with_name("sam2-edge")
LARGE = RotationPolicy(2**30, 3600, 2**40)


def frame(index: int, unix_s: float | None = None) -> SourceFrame:
    return SourceFrame(index, f"{index:08d}", np.full((48, 64, 3), index % 256, np.uint8), unix_s)


def result(index: int, *, noise: bool = False) -> FrameResult:
    logits = np.full((16, 16), -1.0, np.float32)
    logits[4:9, 4:9] = 1.0
    if noise:
        logits = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    size = (512, 512) if noise else (48, 64)
    return FrameResult(index, (ObjectResult(1, logits, 0.9, 3.0, size),), size, 1.0)


def test_a_new_file_begins_when_one_is_large_and_the_oldest_go(tmp_path: Path) -> None:
    rule = RotationPolicy(max_bytes=2000, max_age_s=3600, keep_bytes=7000)
    sink = RotatingSink(tmp_path / "out", "results", ".jsonl", JsonLines, rule)
    for index in range(400):
        sink.write(frame(index), result(index))
    sink.close()
    files = sorted((tmp_path / "out").iterdir())
    assert 2 <= len(files) <= 5
    assert sum(f.stat().st_size for f in files) < 7000 + 2 * 2000 + 200
    seen = [json.loads(line)["frame"] for f in files for line in f.read_text().splitlines()]
    assert seen == list(range(seen[0], 400))
    assert seen[0] > 0


def test_a_new_folder_begins_when_one_is_old(tmp_path: Path) -> None:
    rule = RotationPolicy(max_bytes=2**30, max_age_s=0.05, keep_bytes=2**30)
    sink = RotatingSink(tmp_path, "masks", "", MaskFolder, rule)
    sink.write(frame(0), result(0))
    time.sleep(0.06)
    sink.write(frame(1), result(1))
    sink.close()
    assert [len(list(folder.iterdir())) for folder in sorted(tmp_path.iterdir())] == [1, 1]


def test_only_outputs_of_ones_own_are_deleted_and_numbers_go_on(tmp_path: Path) -> None:
    foreign = [tmp_path / "results-final.jsonl", tmp_path / "results-1.jsonl"]
    for path in foreign:
        path.write_text("mine")
    rule = RotationPolicy(max_bytes=500, max_age_s=3600, keep_bytes=5000)
    for _ in range(3):
        sink = RotatingSink(tmp_path, "results", ".jsonl", JsonLines, rule)
        for index in range(12):
            sink.write(frame(index), result(index))
        sink.close()
    own = sorted(set(tmp_path.iterdir()) - set(foreign))
    numbers = [int(path.name.split("-")[1]) for path in own]
    assert all(path.read_text() == "mine" for path in foreign)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert numbers[0] > 0


def test_a_clock_that_is_set_back_stops_no_video(tmp_path: Path) -> None:
    path = tmp_path / "video.mkv"
    video = RealTimeVideo(path, fps=10)
    for index in range(40):
        video.write(frame(index, 1000.0 + 0.1 * index - (600 if index >= 20 else 0)), result(index))
    video.close()
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    assert 38 <= count <= 42


def test_json_has_no_number_that_is_not_finite() -> None:
    odd = ObjectResult(1, np.zeros((4, 4), np.float32), float("nan"), float("inf"), (8, 8))
    record = json_record(frame(0), FrameResult(0, (odd,), (8, 8), 1.0), odd)
    assert (record["iou"], record["object_score"]) == (None, None)
    json.dumps(record, allow_nan=False)


def test_limits_that_are_no_limits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="keep_bytes is 0; give more than 0"):
        RotationPolicy(1, 1.0, 0)
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="cannot be made"):
        RotatingSink(tmp_path / "file" / "x", "a", ".b", JsonLines, LARGE)


def test_datagrams_hold_what_a_json_line_does() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        sink = UdpJson("127.0.0.1", receiver.getsockname()[1])
        sink.write(frame(3, 12.5), result(3))
        sink.write(frame(4), result(4, noise=True))
        small, large = (json.loads(receiver.recv(70_000)) for _ in range(2))
        sink.close()
    assert (small["frame"], small["object"], small["time"]) == (3, 1, 12.5)
    assert small["rle"]["size"] == [48, 64]
    assert (large["frame"], large["rle"]) == (4, None)


def test_a_receiver_that_is_not_there_disturbs_nobody() -> None:
    sink = UdpJson("127.0.0.1", 9)
    for index in range(5):
        sink.write(frame(index), result(index))
    sink.close()
    with pytest.raises(SinkError, match="is no address for UDP"):
        UdpJson("no.such.host.invalid", 5)


def test_a_video_of_a_camera_plays_as_fast_as_it_happened(tmp_path: Path) -> None:
    path = tmp_path / "video.mkv"
    video = RealTimeVideo(path, fps=10)
    times = [0.0, 0.03, 0.06, 0.35, 0.7, 90.0, 90.1]  # too fast, too slow, and a gap
    for index, at in enumerate(times):
        video.write(frame(index, 1000.0 + at), result(index))
    video.close()
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    assert count == 8 + 10 + 1  # 0 to 0.7 s, the gap as one second, and one more


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notify("READY=1")  # without a service manager nothing happens
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        watchdog = Watchdog()
        notify("READY=1")
        watchdog.alive()
        watchdog.alive()  # too soon
        time.sleep(0.11)
        watchdog.alive()
        assert [manager.recv(99) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    notify("STOPPING=1")  # nobody listens any more


@pytest.fixture
def clip_file(tmp_path: Path) -> Path:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (128, 128))
    for picture in moving_shapes().frames[:12]:
        writer.write(picture)
    writer.release()
    return path


def records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(x) for f in sorted(folder.iterdir()) for x in f.read_text().splitlines()]


def test_a_file_is_tracked_whole(clip_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["run", str(clip_file), "--bundle", "nano", "--point", "34,38", "--unpaced"]
    arguments += ["--jsonl", f"{out}/j", "--video", f"{out}/v", "--masks", f"{out}/m"]
    done = CliRunner().invoke(cli, [*arguments, "--report-s", "0.01"], catch_exceptions=False)
    assert done.exit_code == 0
    assert [r["frame"] for r in records(out / "j")] == list(range(12))
    assert len(list((out / "m").rglob("*.png"))) == 12


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--point", "500,5"], PromptError, "point 500,5 is outside the frame"),
        (["--object", "300", "--point", "5,5", "--masks", "m"], PromptError, "id 300 does not fit"),
        (["--udp", "nowhere"], SystemExit, "'nowhere' is not HOST:PORT"),
        (["--keep-gb", "0"], SinkError, "keep_bytes is 0; give more than 0"),
    ],
)
def test_bad_options_end_it_at_once(
    options: list[str], error: type[BaseException], message: str, clip_file: Path
) -> None:
    done = CliRunner().invoke(cli, ["run", str(clip_file), "--bundle", "nano", *options])
    assert isinstance(done.exception, error)
    assert message in done.output + str(done.exception)


def started(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    """The command on the synthetic camera, once it has written something."""
    command = [str(SCRIPT), "run", "synth", "--bundle", "nano", "--point", "240,240"]
    command += ["--jsonl", str(tmp_path / "j"), "--video", str(tmp_path / "v"), "--threads", "1"]
    process = subprocess.Popen(
        [*command, "--report-s", "0.2", "--log-json", *options], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not enough(tmp_path):
        time.sleep(0.05)
    assert enough(tmp_path)
    return process


def enough(tmp_path: Path) -> bool:
    videos = list((tmp_path / "v").glob("*")) if (tmp_path / "v").exists() else []
    return bool(videos) and videos[0].stat().st_size > 200_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    process = started(tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    lines = [json.loads(line) for line in errors.splitlines()]
    assert lines[-1]["message"].startswith("ended: captured")
    assert lines[-1]["tracked"] == len(records(tmp_path / "j"))
    assert lines[-1]["tracked"] + lines[-1]["dropped"] <= lines[-1]["captured"]
    assert read_frames(tmp_path) > 10


def test_after_kill_9_outputs_are_readable_to_the_last_whole_line(tmp_path: Path) -> None:
    process = started(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    (file,) = (tmp_path / "j").iterdir()
    *whole, _ = file.read_text().split("\n")
    assert len(whole) > 10
    assert [json.loads(line)["object"] for line in whole] == [1] * len(whole)
    assert read_frames(tmp_path) > 5


def read_frames(tmp_path: Path) -> int:
    (video,) = (tmp_path / "v").iterdir()
    capture, count = cv2.VideoCapture(str(video)), 0
    while capture.read()[0]:
        count += 1
    return count
