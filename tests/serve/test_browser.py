"""The page in Chromium: clicks, boxes, effects, errors and reconnection."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from sam2_edge.serve.security import Access
from sam2_edge.synthetic import center_click
from sam2_edge.synthetic.camera import SyntheticCamera
from tests.helpers.clock import wait_until
from tests.helpers.prefix_proxy import prefix_proxy
from tests.helpers.site import TOKEN, Site

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
SEED, SIZE = 16, 320
STILL_FRAME, FAST = 5, 2
"""A frame that shows all objects, and an object that moves far and is tracked well by nano."""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # A container has no user namespaces for Chromium's own sandbox.
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


class SlowCamera(SyntheticCamera):
    """A synthetic camera slow enough for a browser on the same machine.

    The scene stands still at `STILL_FRAME` until `go` is set.
    """

    def __init__(self) -> None:
        super().__init__(SEED, size=SIZE, objects=2, paced=False)
        self.go = threading.Event()
        self.positions: list[int] = []

    def read(self):
        time.sleep(0.1)
        last = self.positions[-1] if self.positions else STILL_FRAME - 1
        if last < STILL_FRAME or self.go.is_set():
            last += 1
        self.positions.append(last)
        return self.clip.frames[self.position(last)]


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(Access(None))
    site.camera = SlowCamera()
    site.loop._capture.open_camera = lambda: site.camera
    with site:
        yield site


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    problems: list[str] = []
    opened = browser.new_page(viewport={"width": 1200, "height": 800})
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.goto(site.url())
    expect(opened.locator("#status")).to_have_text("live", timeout=20_000)
    yield opened
    opened.close()
    assert problems == []


def test_the_page_works_under_a_path_prefix_and_takes_a_token(browser: Browser) -> None:
    with Site(Access(TOKEN)) as site, prefix_proxy(site.port) as url:
        page = browser.new_page()
        failed: list[str] = []
        page.on("requestfailed", lambda request: failed.append(request.url))
        page.on("response", lambda answer: failed.append(answer.url) if not answer.ok else None)
        page.goto(f"{url}?token={TOKEN}")
        expect(page.locator("#status")).to_have_text("live", timeout=20_000)
        assert page.url == url
        wait_until(lambda: shown(page) > 0)
        with page.expect_download() as download:
            page.click("#download")
        assert download.value.suggested_filename.startswith("masks-")
        assert [address for address in failed if "token=" not in address] == []
        page.close()


def shown(page: Page) -> int:
    return int(page.locator("#view").get_attribute("data-frame") or -1)


def truth(site: Site, frame: int, object_id: int) -> np.ndarray:
    return site.camera.clip.mask(site.camera.position(site.camera.positions[frame]), object_id)


def at(page: Page, x: float, y: float) -> tuple[float, float]:
    """Screen position of a pixel of the frame."""
    area = page.locator("#view").bounding_box()
    assert area is not None
    return (
        area["x"] + (x + 0.5) * area["width"] / SIZE,
        area["y"] + (y + 0.5) * area["height"] / SIZE,
    )


def click_object(page: Page, site: Site, object_id: int) -> None:
    x, y = center_click(truth(site, shown(page), object_id))
    page.mouse.click(*at(page, x, y))
    expect(page.locator("[data-object][data-present]").last).to_be_visible()


def distances(site: Site, object_id: int, frames: int) -> list[float]:
    """Return the distances in pixels between the centers of tracked and true masks."""
    found: list[float] = []
    last, first = None, site.hub.latest.frame.index  # type: ignore[union-attr]
    while site.hub.latest.frame.index < first + frames:  # type: ignore[union-attr]
        latest = site.hub.latest
        if latest is last or latest is None:
            time.sleep(0.005)
            continue
        last = latest
        true = truth(site, latest.frame.index, object_id)
        mask = latest.result.objects[0].mask
        if true.any() and mask.any():
            found.append(float(np.hypot(*(center(mask) - center(true)))))
    return found


def center(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(axis=0)


def test_a_clicked_object_is_tracked_over_100_frames(page: Page, site: Site) -> None:
    site.camera.go.set()
    before = shown(page)
    wait_until(lambda: shown(page) > before)
    click_object(page, site, FAST)
    found = distances(site, FAST, 100)
    assert len(found) > 20
    assert np.median(found) < SIZE / 20


def test_objects_are_boxed_refined_named_and_removed(page: Page, site: Site) -> None:
    page.click("#pause")
    expect(page.locator("#status")).to_have_text("paused")
    wait_until(lambda: shown(page) == site.hub.latest.frame.index)  # type: ignore[union-attr]
    click_object(page, site, 1)
    page.click("#add")
    rows, columns = np.nonzero(truth(site, shown(page), 2))
    page.mouse.move(*at(page, columns.min(), rows.min()))
    page.mouse.down()
    page.mouse.move(*at(page, columns.max(), rows.max()), steps=5)
    page.mouse.up()
    expect(page.locator("#objects li")).to_have_count(2)
    wait_until(lambda: len(site.hub.latest.result.objects) == 2)  # type: ignore[union-attr]
    boxed = site.hub.latest.result[2].mask  # type: ignore[union-attr]
    true = truth(site, shown(page), 2)
    assert (boxed & true).sum() / (boxed | true).sum() > 0.5

    x, y = center_click(~boxed)
    page.mouse.click(*at(page, x, y), button="right")  # a background point
    page.click("#pause")
    expect(page.locator("#status")).to_have_text("live")
    name = page.locator("[data-object='2'] .name")
    name.fill("cup")
    name.blur()
    wait_until(lambda: site.hub.latest.result.names == {2: "cup"})  # type: ignore[union-attr]
    page.click("[data-object='1'] .remove")
    expect(page.locator("#objects li")).to_have_count(1)
    page.click("#reset")
    expect(page.locator("#objects li")).to_have_count(0)
    expect(page.locator("#empty")).to_be_visible()


def test_effects_change_what_is_drawn_and_masks_are_downloaded(page: Page, site: Site) -> None:
    click_object(page, site, 1)
    page.click("#pause")
    wait_until(lambda: shown(page) == site.hub.latest.frame.index)  # type: ignore[union-attr]
    pictures = set()
    for effect in ("overlay", "outline", "cutout", "blur", "pixelate", "spotlight"):
        page.select_option("#effect", effect)
        pictures.add(page.locator("#view").screenshot())
    assert len(pictures) == 6
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename.startswith("masks-")


def test_a_problem_is_shown_until_the_next_command(page: Page, site: Site) -> None:
    page.mouse.click(*at(page, 5, 5), button="right")
    expect(page.locator("#problem")).to_contain_text("Select an object first")
    click_object(page, site, 1)
    expect(page.locator("#problem")).to_be_hidden()


def test_a_phone_shows_everything_without_horizontal_scrolling(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for name in ("#view", "#pause", "#effect", "#add"):
        expect(page.locator(name)).to_be_visible()


def test_the_page_reconnects_when_the_server_comes_back(page: Page, site: Site) -> None:
    site.stop_server()
    expect(page.locator("#status")).to_have_text("reconnecting", timeout=20_000)
    site.start_server()
    expect(page.locator("#status")).to_have_text("live", timeout=20_000)
    before = shown(page)
    wait_until(lambda: shown(page) > before)


def test_clicks_on_a_removed_object_are_forgotten(page: Page, site: Site) -> None:
    given: list[int] = []
    prompt = site.loop.prompt

    def recorded(object_id: int, **kind):
        given.append(len(kind["points"]))
        return prompt(object_id, **kind)

    site.loop.prompt = recorded
    page.click("#pause")
    expect(page.locator("#status")).to_have_text("paused")
    wait_until(lambda: shown(page) == site.hub.latest.frame.index)  # type: ignore[union-attr]
    click_object(page, site, 1)
    click_object(page, site, 1)
    page.click("[data-object='1'] .remove")
    expect(page.locator("#objects li")).to_have_count(0)
    click_object(page, site, 2)
    assert given == [1, 2, 1]
