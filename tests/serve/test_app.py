"""The server: frames, commands, limits, and independence of slow viewers."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from contextlib import ExitStack
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from sam2_edge.runtime.streaming.loop import LoopResult
from sam2_edge.serve.app import MAX_VIEWERS
from sam2_edge.serve.commands import MAX_BYTES
from sam2_edge.serve.encoder import Encoded, Encoder
from sam2_edge.serve.frame_message import run_lengths
from sam2_edge.serve.security import BURST, Access
from sam2_edge.synthetic import center_click
from tests.helpers.cameras import ScriptedCamera
from tests.helpers.clock import wait_until
from tests.helpers.site import Site, ask, next_frame


def test_runs_encode_a_mask_row_by_row() -> None:
    mask = np.array([[0, 0, 3], [3, 3, 0], [255, 255, 255]], np.uint8)
    packed = run_lengths(mask)
    assert [(int(r) >> 24, int(r) & 0xFFFFFF) for r in packed] == [(0, 2), (3, 3), (0, 1), (255, 3)]


def test_frames_arrive_with_masks_and_statistics(open_site: Site) -> None:
    with open_site.socket() as socket:
        first, mask, picture = next_frame(socket)
        later, _, _ = next_frame(socket)
    assert (first["width"], first["height"], mask.shape) == (256, 256, (256, 256))
    assert picture.shape == (256, 256, 3)
    assert later["frame"] > first["frame"]
    assert {"fps", "latency_ms", "dropped", "paused", "objects"} <= first.keys()


def test_a_viewer_adds_refines_names_and_removes_an_object(open_site: Site) -> None:
    with open_site.socket() as socket:
        assert ask(socket, type="pause") == {"type": "done", "id": 7}
        # The loop finishes a frame before the first command after the pause, and publishes it
        # before the second.
        ask(socket, type="reset")
        ask(socket, type="reset")
        assert open_site.hub.latest is not None
        paused = open_site.camera.position(open_site.hub.latest.frame.index)
        truth = open_site.camera.clip.mask(paused, 1)
        click = [list(center_click(truth))]
        x, y, width, height = cv2.boundingRect(truth.astype(np.uint8))
        box = [x, y, min(x + width, 255), min(y + height, 255)]

        assert ask(socket, type="prompt", object=1, box=box)["type"] == "done"
        _, mask, _ = next_frame(socket, lambda h: len(h["objects"]) == 1)
        assert (mask[truth] == 1).mean() > 0.4
        assert ask(socket, type="prompt", object=1, points=click * 2, labels=[1, 1])["id"] == 7

        assert ask(socket, type="name", object=1, name="cup")["type"] == "done"
        header, _, _ = next_frame(socket, lambda h: h["objects"][0]["name"] == "cup")
        assert header["objects"][0]["color"] == [86, 180, 233]

        download = httpx.get(open_site.url("/masks.zip"))
        with zipfile.ZipFile(io.BytesIO(download.content)) as archive:
            found = np.asarray(Image.open(archive.open("masks.png")))
            picture = Image.open(archive.open("frame.jpg"))
            (record,) = json.load(archive.open("objects.json"))
        assert set(np.unique(found)) == {0, 1}
        assert picture.size == (256, 256)
        assert "cup" in record.values()
        assert "attachment" in download.headers["content-disposition"]

        assert ask(socket, type="remove", object=1)["type"] == "done"
        assert ask(socket, type="resume")["type"] == "done"
        next_frame(socket, lambda h: not h["objects"] and not h["paused"])
        assert ask(socket, type="reset")["type"] == "done"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"type": "remove", "object": 9}, "object 9 is not tracked"),
        ({"type": "prompt", "object": 1, "points": [[999, 5]]}, "point 999,5 is outside the frame"),
        ({"type": "prompt", "object": 1}, "an empty prompt"),
        ({"type": "prompt", "object": 0, "points": [[5, 5]]}, "prompt.object: Input should be"),
        ({"type": "prompt", "object": 1, "points": [[5, 5]] * 33}, "at most 32 items"),
        ({"type": "name", "object": 1, "name": "x" * 41}, "at most 40 characters"),
        ({"type": "shell", "object": 1}, "the message: Input tag 'shell'"),
        ({"type": "reset", "path": "/etc/passwd"}, "Extra inputs are not permitted"),
    ],
)
def test_an_invalid_command_is_answered_with_an_error(
    open_site: Site, message: dict[str, Any], error: str
) -> None:
    with open_site.socket() as socket:
        answer = ask(socket, **message)
    assert answer["type"] == "error"
    assert error in answer["message"]


@pytest.mark.parametrize(
    "texts",
    [["{}"] * (int(BURST) + 30), ["x" * (MAX_BYTES + 1)], ["x" * 10 * MAX_BYTES]],
    ids=["too many", "too long", "far too long"],
)
def test_excessive_messages_end_the_connection(open_site: Site, texts: list[str]) -> None:
    def send_and_read(socket: ClientConnection) -> None:
        for text in texts:
            socket.send(text)
        for _ in range(1000):  # frames already on their way
            socket.recv(timeout=10)

    with open_site.socket() as socket, pytest.raises(ConnectionClosed):
        send_and_read(socket)


def test_a_frame_is_encoded_once_for_all_viewers(open_site: Site) -> None:
    encoded: list[LoopResult] = []
    shown = open_site.hub.latest

    def encode(result: LoopResult) -> bytes:
        encoded.append(result)
        return b"frame"

    async def ask_thrice() -> list[Encoded]:
        encoder = Encoder(encode)
        encoder.offer(shown)
        return await asyncio.gather(*(encoder.newest() for _ in range(3)))

    assert asyncio.run(ask_thrice()) == [(shown, b"frame")] * 3
    assert encoded == [shown]


def test_a_viewer_that_never_reads_delays_no_one(open_site: Site) -> None:
    with ExitStack() as stack:
        stack.enter_context(open_site.socket())  # never reads
        others = [stack.enter_context(open_site.socket()) for _ in range(5)]
        latest = max(next_frame(socket)[0]["frame"] for socket in others)
        for socket in others:
            for _ in range(5):
                latest = next_frame(socket, lambda h, seen=latest: h["frame"] > seen)[0]["frame"]
    wait_until(lambda: open_site.hub.viewers == 0)


def test_viewers_beyond_the_maximum_are_rejected(open_site: Site) -> None:
    accepted = 0
    with ExitStack() as stack, pytest.raises((ConnectionClosed, InvalidStatus)):
        while True:
            next_frame(stack.enter_context(open_site.socket()))
            accepted += 1
    assert accepted == MAX_VIEWERS


@pytest.mark.parametrize(
    "path", ["/../app.py", "/%2e%2e/app.py", "/app.py", "/assets/index.html", "//etc/passwd"]
)
def test_no_path_reaches_the_file_system(open_site: Site, path: str) -> None:
    assert httpx.get(open_site.url(path)).status_code == 404


def test_metrics_contain_counts_and_latencies(open_site: Site) -> None:
    text = httpx.get(open_site.url("/metrics")).text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    assert float(values["sam2_edge_tracked_total"]) > 0
    assert float(values["sam2_edge_captured_total"]) >= float(values["sam2_edge_tracked_total"])
    assert float(values["sam2_edge_resident_mb"]) > 50
    assert float(values['sam2_edge_seconds_count{stage="latency"}']) > 0


def test_every_action_can_be_undone_and_redone(open_site: Site) -> None:
    with open_site.socket() as socket:
        ask(socket, type="pause")
        ask(socket, type="reset")
        ask(socket, type="prompt", object=1, box=[60, 60, 160, 160])
        ask(socket, type="click", object=1, x=100, y=100)
        ask(socket, type="click", object=1, x=10, y=10, foreground=False)
        header, _, _ = next_frame(socket, lambda h: len(clicks(h)) == 2)
        assert clicks(header) == [[100, 100, 1], [10, 10, 0]]
        assert (header["undo"], header["redo"]) == ("click on object 1", None)
        ask(socket, type="undo")
        header, _, _ = next_frame(socket, lambda h: h["redo"] == "click on object 1")
        assert clicks(header) == [[100, 100, 1]]
        ask(socket, type="name", object=1, name="cup")
        ask(socket, type="remove", object=1)
        next_frame(socket, lambda h: not h["objects"])
        ask(socket, type="undo")
        header, _, _ = next_frame(socket, lambda h: h["objects"])
        assert (header["objects"][0]["name"], clicks(header)) == ("cup", [[100, 100, 1]])
        ask(socket, type="undo")
        next_frame(socket, lambda h: h["objects"][0]["name"] == "")
        ask(socket, type="redo")
        next_frame(socket, lambda h: h["objects"][0]["name"] == "cup")
        ask(socket, type="reset")
        ask(socket, type="resume")


def clicks(header: dict[str, Any]) -> list[list[float]]:
    return header["objects"][0]["clicks"] if header["objects"] else []


def test_viewers_are_told_of_the_end_of_a_file_and_can_replay_it() -> None:
    site = Site(Access(None), at_end="wait", every_frame=True)
    frames = site.camera.clip.frames[:3]
    site.camera = ScriptedCamera(frames, ends=True)
    with site, site.socket() as socket:
        header, _, _ = next_frame(socket, lambda h: h["finished"])
        assert (header["frame"], header["fps"]) == (2, 0)
        assert ask(socket, type="prompt", object=1, box=[60, 60, 160, 160])["type"] == "done"
        site.camera = ScriptedCamera(frames, ends=True)
        ask(socket, type="replay")
        header, _, _ = next_frame(socket, lambda h: h["finished"] and h["frame"] == 5)
    assert [entry["id"] for entry in header["objects"]] == [1]
