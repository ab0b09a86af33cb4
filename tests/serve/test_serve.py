"""The server: who may enter, what it sends and obeys, and that viewers do not slow the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from sam2_edge import PromptError, Sam2EdgeError
from sam2_edge.cli.main import cli
from sam2_edge.runtime.streaming.stats import Meter
from sam2_edge.serve.app import MAX_VIEWERS
from sam2_edge.serve.commands import MAX_BYTES
from sam2_edge.serve.frame_message import run_lengths
from sam2_edge.serve.hub import Hub
from sam2_edge.serve.security import BURST, Access, is_local, make_access
from sam2_edge.synthetic import center_click
from tests.helpers.site import TOKEN, Site, ask, next_frame


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site(Access(None)) as made:
        yield made


@pytest.fixture(scope="module")
def guarded() -> Iterator[Site]:
    with Site(Access(TOKEN, ("https://robot.example",))) as made:
        yield made


def test_runs_say_what_the_mask_is() -> None:
    mask = np.array([[0, 0, 3], [3, 3, 0], [255, 255, 255]], np.uint8)
    packed = run_lengths(mask)
    assert [(int(r) >> 24, int(r) & 0xFFFFFF) for r in packed] == [(0, 2), (3, 3), (0, 1), (255, 3)]


def test_frames_come_with_masks_and_numbers(site: Site) -> None:
    with site.socket() as socket:
        first, mask, picture = next_frame(socket)
        later, _, _ = next_frame(socket)
        assert (first["width"], first["height"], mask.shape) == (256, 256, (256, 256))
        assert picture.shape == (256, 256, 3)
        assert later["frame"] > first["frame"]
        assert {"fps", "age_ms", "dropped", "paused", "objects"} <= first.keys()


def test_a_viewer_adds_refines_names_and_removes(site: Site) -> None:
    with site.socket() as socket:
        assert ask(socket, type="pause") == {"type": "done", "id": 7}
        next_frame(socket, lambda h: h["paused"])
        time.sleep(0.3)  # the frame that was being tracked
        assert site.hub.latest is not None
        shown = site.camera.position(site.hub.latest.frame.index)
        truth = site.camera.clip.mask(shown, 1)
        click = [list(center_click(truth))]
        x, y, width, height = cv2.boundingRect(truth.astype(np.uint8))
        box = [x, y, min(x + width, 255), min(y + height, 255)]
        assert ask(socket, type="prompt", object=1, box=box)["type"] == "done"
        _, mask, _ = next_frame(socket, lambda h: len(h["objects"]) == 1)
        assert (mask[truth] == 1).mean() > 0.4
        assert ask(socket, type="prompt", object=1, points=click * 2, labels=[1, 1])["id"] == 7
        assert ask(socket, type="name", object=1, name="cup")["type"] == "done"
        header, _, _ = next_frame(socket, lambda h: h["objects"][0]["name"] == "cup")
        assert header["objects"][0]["color"] == [128, 0, 0]
        masks = httpx.get(site.url("/masks.png"))
        found = cv2.imdecode(np.frombuffer(masks.content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert set(np.unique(found)) <= {0, 1}
        assert "attachment" in masks.headers["content-disposition"]
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
def test_what_cannot_be_done_is_told(site: Site, message: dict[str, Any], error: str) -> None:
    with site.socket() as socket:
        answer = ask(socket, **message)
        assert answer["type"] == "error"
        assert error in answer["message"]


def test_too_much_too_often_or_too_large_ends_the_connection(site: Site) -> None:
    for texts in (["{}"] * (int(BURST) + 30), ["x" * (MAX_BYTES + 1)], ["x" * 10 * MAX_BYTES]):
        with site.socket() as socket:

            def talk(texts: list[str] = texts, socket: ClientConnection = socket) -> None:
                for text in texts:
                    socket.send(text)
                for _ in range(1000):  # frames on their way before the end
                    socket.recv(timeout=10)

            with pytest.raises(ConnectionClosed):
                talk()


def test_a_frame_is_encoded_once_for_all_viewers(site: Site) -> None:
    hub = Hub(site.loop, Meter(site.loop))
    shown = site.hub.latest

    async def look() -> list[bytes]:
        return await asyncio.gather(*(hub.encoded(shown) for _ in range(3)))

    first, *others = asyncio.run(look())
    assert all(other is first for other in others)


def test_viewers_come_and_go_and_a_slow_one_holds_up_nobody(site: Site) -> None:
    with ExitStack() as stack:
        stack.enter_context(site.socket())  # never reads
        others = [stack.enter_context(site.socket()) for _ in range(5)]
        before = site.loop.tracked
        time.sleep(1.0)
        frames = [next_frame(s, lambda h: h["frame"] > 5)[0]["frame"] for s in others]
        assert site.loop.tracked - before >= 5
        assert len(frames) == 5
    deadline = time.monotonic() + 10
    while site.hub.viewers and time.monotonic() < deadline:
        time.sleep(0.05)
    assert site.hub.viewers == 0


def test_more_viewers_than_are_let_in_are_turned_away(site: Site) -> None:
    let_in = 0
    with ExitStack() as stack, pytest.raises((ConnectionClosed, InvalidStatus)):
        while True:
            next_frame(stack.enter_context(site.socket()))
            let_in += 1
    assert let_in == MAX_VIEWERS


@pytest.mark.parametrize("path", ["/", "/app.js", "/view.js", "/style.css", "/icon.svg"])
def test_the_page_is_in_the_package_and_has_security_headers(site: Site, path: str) -> None:
    answer = httpx.get(site.url(path))
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
    assert "http://" not in answer.text.replace("http://www.w3.org/", "")
    assert "https://" not in answer.text


@pytest.mark.parametrize(
    "path", ["/../app.py", "/%2e%2e/app.py", "/app.py", "/assets/index.html", "//etc/passwd"]
)
def test_no_path_reaches_the_file_system(site: Site, path: str) -> None:
    assert httpx.get(site.url(path)).status_code == 404


def test_prometheus_reads_counts_and_latencies(site: Site) -> None:
    text = httpx.get(site.url("/metrics")).text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    assert float(values["sam2_edge_tracked_total"]) > 0
    assert float(values["sam2_edge_captured_total"]) >= float(values["sam2_edge_tracked_total"])
    assert float(values["sam2_edge_resident_mb"]) > 50
    assert float(values['sam2_edge_seconds_count{stage="latency"}']) > 0


def test_without_a_token_only_this_machines_own_names_are_answered(site: Site) -> None:
    assert httpx.get(site.url(), headers={"host": "evil.example"}).status_code == 401
    assert httpx.get(site.url(), headers={"host": "localhost:99"}).status_code == 200
    assert httpx.get(site.url("/healthz"), headers={"host": "probe"}).text == "ok"


@pytest.mark.parametrize("path", ["/", "/app.js", "/masks.png", "/metrics"])
def test_a_token_is_asked_for(guarded: Site, path: str) -> None:
    assert httpx.get(guarded.url(path)).status_code == 401
    assert httpx.get(guarded.url(path), params={"token": TOKEN[:-1]}).status_code == 401
    allowed = httpx.get(guarded.url(path), headers={"authorization": f"Bearer {TOKEN}"})
    assert allowed.status_code == 200


def test_a_token_in_the_address_becomes_a_cookie(guarded: Site) -> None:
    with httpx.Client() as client:
        first = client.get(guarded.url(), params={"token": TOKEN})
        assert (first.status_code, first.headers["location"]) == (303, "/")
        cookie = first.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert client.get(guarded.url()).status_code == 200


def test_a_cookie_of_an_earlier_start_does_not_keep_the_token_out(guarded: Site) -> None:
    old = {"cookie": "sam2_edge_token=" + "x" * 32}
    assert httpx.get(guarded.url(), params={"token": TOKEN}, headers=old).status_code == 303
    bearer = {**old, "authorization": f"Bearer {TOKEN}"}
    assert httpx.get(guarded.url(), headers=bearer).status_code == 200


def test_behind_a_proxy_with_tls_the_cookie_is_for_tls_alone(guarded: Site) -> None:
    host = {"host": "robot.example"}
    answer = httpx.get(guarded.url(), params={"token": TOKEN}, headers=host)
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("host", ["[::1", "a b", "\u00e9".encode()])
def test_hosts_that_are_none_are_refused(site: Site, host: str | bytes) -> None:
    assert httpx.get(site.url(), headers={"host": host}).status_code in (400, 401)


def test_a_websocket_needs_the_token_and_our_own_page(guarded: Site) -> None:
    cookie = {"cookie": f"sam2_edge_token={TOKEN}"}
    with pytest.raises(InvalidStatus):
        guarded.socket()
    with pytest.raises(InvalidStatus):
        guarded.socket(additional_headers=cookie, origin="http://evil.example")
    for origin in (None, guarded.url("")[: len(guarded.url(""))], "https://robot.example"):
        with guarded.socket(additional_headers=cookie, origin=origin) as socket:
            next_frame(socket)


def test_addresses_that_others_reach_get_a_token() -> None:
    assert make_access("127.0.0.1", None, ()).token is None
    assert make_access("::1", None, ()).token is None
    made = {make_access("0.0.0.0", None, ()).token for _ in range(3)}  # noqa: S104
    assert len(made) == 3
    assert all(token and len(token) >= 32 for token in made)
    assert make_access("localhost", TOKEN, ()).token == TOKEN
    assert is_local("127.3.4.5")
    assert not is_local("robot.local")
    with pytest.raises(Sam2EdgeError, match="a token of 5 characters is easy to guess"):
        make_access("0.0.0.0", "short", ())  # noqa: S104
    with pytest.raises(Sam2EdgeError, match="robot.example is not an origin; give it as https"):
        make_access("localhost", None, ["robot.example"])


def test_an_address_in_use_is_told(site: Site) -> None:
    arguments = ["serve", "synth", "--bundle", "nano", "--port", str(site.port)]
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, Sam2EdgeError)
    assert "cannot listen on 127.0.0.1:" in str(done.exception)


def test_objects_that_a_mask_cannot_hold_are_refused_at_once() -> None:
    arguments = ["serve", "synth", "--bundle", "nano", "--object", "300", "--point", "5,5"]
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, PromptError)


def test_commands_after_the_end_are_refused() -> None:
    with Site(Access(None)) as ended:
        ended.end_loop()
        ended.hub.end()
        with ended.socket() as socket:
            answer = ask(socket, type="reset")
            assert answer["message"] == "this loop has ended; it takes no more commands"
