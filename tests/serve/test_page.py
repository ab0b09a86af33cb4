"""The page in Chromium as a whole: layout, keyboard, accessibility, files, connection."""

from __future__ import annotations

import json
import re
import zipfile
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from sam2_edge.serve.security import Access
from tests.helpers.cameras import ScriptedCamera
from tests.helpers.clock import wait_until
from tests.helpers.page import (
    DESKTOP,
    SIZE,
    add_by_click,
    center_of,
    draw_box,
    draw_box_anywhere,
    objects,
    selected,
    shown,
)
from tests.helpers.prefix_proxy import prefix_proxy
from tests.helpers.site import TOKEN, Site

NO_NUMBER = re.compile(r"^\D$")

pytestmark = pytest.mark.browser


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


def test_everything_works_by_keyboard(still: Page, site: Site) -> None:
    still.focus("#view")
    for key in ("ArrowRight", "ArrowRight", "Enter"):  # the first one shows the cursor
        still.keyboard.press(key)
    wait_until(lambda: objects(site) == [1])
    ((x, y, sign),) = site.hub.latest.edits.clicks[1].points  # type: ignore[union-attr]
    assert (x, y, sign) == (SIZE / 2 + 0.02 * SIZE, SIZE / 2, 1)
    for key in ("b", *["ArrowRight"] * 9, *["ArrowDown"] * 9, "b"):
        still.keyboard.press(key)
    wait_until(lambda: objects(site) == [1, 2])
    still.keyboard.press("1")
    assert selected(still) == ["1"]
    still.keyboard.press("Delete")
    wait_until(lambda: objects(site) == [2])
    still.keyboard.press("p")
    expect(still.locator("#status")).to_have_text("live")
    still.keyboard.press("?")
    expect(still.locator("#keys")).to_be_visible()
    still.keyboard.press("Escape")
    expect(still.locator("#keys")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(still: Page, site: Site, scheme: Any) -> None:
    draw_box(still, site, 1)
    expect(still.locator("[data-object][data-present]")).to_have_count(1)
    still.emulate_media(color_scheme=scheme)
    assert Axe().run(still).response["violations"] == []
    still.keyboard.press("?")
    assert Axe().run(still).response["violations"] == []


def test_the_download_has_the_masks_and_names_and_says_that_it_worked(
    still: Page, site: Site
) -> None:
    add_by_click(still, site, 1)
    site.loop.rename(1, "cup").result(20)
    with still.expect_download() as download:
        still.click("#download")
    name = download.value.suggested_filename
    expect(still.locator("#downloaded")).to_have_text(f"Saved {name} with 1 object.")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.namelist() == ["frame.jpg", "masks.png", "objects.json"]
        (record,) = json.loads(archive.read("objects.json"))
    assert "cup" in record.values()


def test_rates_are_not_shown_while_paused(still: Page) -> None:
    expect(still.locator("#fps")).to_have_text(NO_NUMBER)
    expect(still.locator("#latency")).to_have_text(NO_NUMBER)
    still.click("#pause")
    expect(still.locator("#fps")).not_to_have_text(NO_NUMBER)
    # The pause does not count: the camera delivers up to 10 frames per second.
    wait_until(lambda: float(still.locator("#fps").text_content() or 0) > 2)


@pytest.mark.parametrize("size", [(360, 740), (740, 360)], ids=["upright", "on its side"])
def test_a_phone_shows_picture_and_controls_without_a_gap(
    browser: Browser, site: Site, size: tuple[int, int]
) -> None:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.goto(site.url())
    expect(page.locator("#status")).to_have_text("live", timeout=20_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    expect(page.locator("#hint")).to_contain_text("Tap an object")
    view, controls = page.locator("#view").bounding_box(), page.locator("aside").bounding_box()
    assert view is not None
    assert controls is not None
    if size[0] < size[1]:
        assert controls["y"] - (view["y"] + view["height"]) < 60  # a line of text
    else:
        assert view["height"] > 0.75 * size[1]
    page.touchscreen.tap(*center_of(page, site, 1))
    expect(page.locator("#objects li")).to_have_count(1)
    for name in ("#effect", "#objects .name"):
        assert page.locator(name).evaluate("e => getComputedStyle(e).fontSize") == "16px"
    context.close()


def test_a_file_waits_on_its_first_frame_and_is_replayed_at_its_end(browser: Browser) -> None:
    site = Site(Access(None), at_end="wait", every_frame=True)
    frames = site.camera.clip.frames[:3]
    site.camera = ScriptedCamera(frames, ends=True)
    site.loop.pause()
    page = browser.new_page(viewport=DESKTOP)
    with site:
        page.goto(site.url())
        expect(page.locator("#status")).to_have_text("paused", timeout=20_000)
        assert shown(page) == 0
        draw_box_anywhere(page)
        page.get_by_role("button", name="Play").click()
        expect(page.locator("#status")).to_have_text("at the end")
        wait_until(lambda: shown(page) == 2)
        expect(page.locator("#objects li")).to_have_count(1)
        site.camera = ScriptedCamera(frames, ends=True)
        page.get_by_role("button", name="Replay").click()
        wait_until(lambda: shown(page) == 5)
        expect(page.locator("#objects li")).to_have_count(1)
        site.stop_server()
        expect(page.locator("#status")).to_have_text("reconnecting", timeout=20_000)
        for name in ("#pause", "#undo", "#redo", "#add", "#reset", "#download", "#effect"):
            expect(page.locator(name)).to_be_disabled()
    page.close()


def test_the_page_says_what_it_waits_for_before_the_first_frame(browser: Browser) -> None:
    site = Site(Access(None))
    site.start_server()
    try:
        page = browser.new_page(viewport=DESKTOP)
        page.goto(site.url())
        expect(page.locator("#waiting")).to_contain_text("Waiting for the source")
        for name in ("#pause", "#add", "#download"):
            expect(page.locator(name)).to_be_disabled()
        page.close()
    finally:
        site.stop_server()


def test_the_page_reconnects_when_the_server_comes_back(page: Page, site: Site) -> None:
    site.stop_server()
    expect(page.locator("#status")).to_have_text("reconnecting", timeout=20_000)
    site.start_server()
    expect(page.locator("#status")).to_have_text("live", timeout=20_000)
    before = shown(page)
    wait_until(lambda: shown(page) > before)
