"""A server of several streams: sockets, metrics, downloads, and the page that shows them all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from sam2_edge import CameraHub
from sam2_edge.runtime.streaming.stats import LoopStats
from sam2_edge.serve.app import make_app
from sam2_edge.serve.encoder import MAX_SHARE
from sam2_edge.serve.hub import Hub
from sam2_edge.serve.metrics import LoopMetrics
from sam2_edge.serve.security import Access
from sam2_edge.serve.server import run_server
from tests.helpers.clock import wait_until
from tests.helpers.page import DESKTOP, SlowCamera
from tests.helpers.site import TOKEN, ask, messages, next_frame

NAMES = ("door", "yard", "roof")


class StreamsSite:
    """Three streams, of which the last never delivers a frame, and their server."""

    def __init__(self, access: Access) -> None:
        self.cameras = CameraHub("nano", threads=1)
        self.released = threading.Event()
        for name in NAMES:
            self.cameras.add(name, SlowCamera if name != "roof" else self._silent, stall_s=60)
        self.loops = [self.cameras[name] for name in NAMES]
        stats = [LoopStats(loop) for loop in self.loops]
        self.hubs = {s.loop.name: Hub(s.loop, s, streams=NAMES) for s in stats}
        self.metrics = LoopMetrics(*stats)
        self._server = run_server(
            make_app(list(self.hubs.values()), access, self.metrics), "127.0.0.1", 0
        )
        self._thread = threading.Thread(target=self._run)
        self.port = 0

    def _silent(self) -> SlowCamera:
        camera = SlowCamera()
        camera.read = lambda: self.released.wait(60) or None  # type: ignore[assignment]
        return camera

    def _run(self) -> None:
        for name, tracked in self.cameras:
            self.metrics.observe(tracked)
            self.hubs[name].publish(tracked)

    def __enter__(self) -> StreamsSite:
        self.port = self._server.__enter__()
        self._thread.start()
        wait_until(lambda: None not in (self.hubs["door"].latest, self.hubs["yard"].latest))
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.cameras.close()
        self._thread.join()
        self._server.__exit__(None, None, None)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def socket(self, query: str = "", **options: Any) -> AbstractContextManager[ClientConnection]:
        address = f"ws://127.0.0.1:{self.port}/ws{query}"
        return connect(address, max_size=None, compression=None, close_timeout=0.5, **options)

    def objects(self, name: str) -> int:
        latest = self.hubs[name].latest
        return 0 if latest is None else len(latest.result.objects)


@pytest.fixture(scope="module")
def site() -> Iterator[StreamsSite]:
    with StreamsSite(Access(None)) as opened:
        yield opened


def test_a_socket_shows_and_controls_one_stream(site: StreamsSite) -> None:
    with site.socket() as first, site.socket("?stream=yard") as yard:
        told = next(messages(first))
        assert told == '{"type": "streams", "streams": ["door", "yard", "roof"], "stream": "door"}'
        assert next_frame(first)[0]["stream"] == "door"
        assert next_frame(yard)[0]["stream"] == "yard"
        assert ask(yard, type="click", object=1, x=100, y=100)["type"] == "done"
        next_frame(yard, lambda header: len(header["objects"]) == 1)
        assert site.objects("door") == 0
        assert ask(yard, type="reset")["type"] == "done"


@pytest.mark.parametrize("stream", ["cellar", "", "../door", "None"])
def test_a_stream_that_does_not_exist_is_not_found(site: StreamsSite, stream: str) -> None:
    assert httpx.get(site.url("/masks.zip"), params={"stream": stream}).status_code == 404
    with (
        pytest.raises(InvalidStatus, match="404"),
        site.socket(f"?stream={stream}"),
    ):
        pass


def test_downloads_and_metrics_are_by_stream(site: StreamsSite) -> None:
    found = httpx.get(site.url("/masks.zip?stream=yard"))
    assert 'filename="masks-yard-' in found.headers["content-disposition"]
    assert "masks-door-" in httpx.get(site.url("/masks.zip")).headers["content-disposition"]
    text = httpx.get(site.url("/metrics")).text
    for name in NAMES:
        assert f'sam2_edge_tracked_total{{stream="{name}"}} ' in text
    assert 'sam2_edge_tracked_total{stream="roof"} 0.0' in text
    assert 'sam2_edge_seconds_count{stage="latency",stream="door"} ' in text
    assert text.count("\nsam2_edge_resident_mb ") == 1


def test_streams_share_the_time_for_encoding(site: StreamsSite) -> None:
    shares = [hub.frames._max_share + hub.masks._max_share for hub in site.hubs.values()]
    assert sum(shares) == pytest.approx(2 * MAX_SHARE)


def test_every_stream_needs_the_token_and_an_allowed_page() -> None:
    with StreamsSite(Access(TOKEN)) as guarded:
        for query in ("?stream=door", "?stream=yard", "?stream=cellar"):
            assert httpx.get(guarded.url(f"/masks.zip{query}")).status_code == 401
            with pytest.raises(InvalidStatus, match="401"), guarded.socket(query):
                pass
            foreign = {"origin": "https://elsewhere.example"}
            with (
                pytest.raises(InvalidStatus, match="403"),
                guarded.socket(f"{query}&token={TOKEN}", **foreign),
            ):
                pass


@pytest.fixture
def page(browser: Browser, site: StreamsSite) -> Iterator[Page]:
    problems: list[str] = []
    opened = browser.new_page(viewport=DESKTOP)
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.goto(site.url("/"))
    expect(opened.locator("#status")).to_have_text("live", timeout=20_000)
    yield opened
    opened.close()
    assert problems == []
    for loop in site.loops[:2]:
        loop.reset().result(20)


def large(page: Page) -> str | None:
    return page.locator(".stream[aria-pressed=true]").get_attribute("data-stream")


def test_the_page_shows_every_stream_and_one_large(page: Page, site: StreamsSite) -> None:
    assert page.locator(".stream .called").all_text_contents() == list(NAMES)
    assert large(page) == "door"
    for name in ("door", "yard"):
        expect(page.locator(f"[data-stream={name}]")).to_have_attribute("data-state", "live")
    expect(page.locator("[data-stream=roof]")).to_have_attribute(
        "data-state", "stalled", timeout=15_000
    )
    page.click("#add")
    page.click("#view")
    expect(page.locator("#objects li[data-present]")).to_have_count(1)
    wait_until(lambda: site.objects("door") == 1)
    assert site.objects("yard") == 0

    page.click("[data-stream=yard]")
    assert large(page) == "yard"
    expect(page.locator("#objects li")).to_have_count(0)
    expect(page.locator("#status")).to_have_text("live")
    page.click("#add")
    page.click("#view")
    wait_until(lambda: site.objects("yard") == 1)
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename.startswith("masks-yard-")

    page.keyboard.press("Shift+S")
    assert large(page) == "door"
    expect(page.locator("#objects li[data-present]")).to_have_count(1)
    page.keyboard.press("Shift+S")
    assert large(page) == "roof"
    expect(page.locator("#pause")).to_be_disabled()
    page.keyboard.press("s")
    assert large(page) == "door"
    wait_until(lambda: [hub.viewers for hub in site.hubs.values()] == [1, 1, 1])
