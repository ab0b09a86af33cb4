"""Servers with and without a token, and a browser on a scene that stands still."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from sam2_edge.serve.security import Access
from tests.helpers.clock import wait_until
from tests.helpers.page import DESKTOP, SlowCamera, shown
from tests.helpers.site import TOKEN, Site


@pytest.fixture(scope="package")
def open_site() -> Iterator[Site]:
    """A server on a loopback address, which needs no token."""
    with Site(Access(None)) as site:
        yield site


@pytest.fixture(scope="package")
def guarded_site() -> Iterator[Site]:
    """A server with a token, and a TLS proxy at robot.example."""
    with Site(Access(TOKEN, ("https://robot.example",))) as site:
        yield site


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        # A container has no user namespaces for Chromium's own sandbox.
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def shared_site() -> Iterator[Site]:
    site = Site(Access(None))
    site.camera = SlowCamera()
    with site:
        yield site


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    """The shared site without objects, on the still frame."""
    yield shared_site
    shared_site.camera.go.clear()
    shared_site.loop.resume()
    shared_site.loop.reset().result(20)


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    problems: list[str] = []
    opened = browser.new_page(viewport=DESKTOP)
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.goto(site.url())
    expect(opened.locator("#status")).to_have_text("live", timeout=20_000)
    yield opened
    opened.close()
    assert problems == []


@pytest.fixture
def still(page: Page, site: Site) -> Page:
    """The page, paused, with the latest frame on display."""
    page.click("#pause")
    expect(page.locator("#status")).to_have_text("paused")
    wait_until(lambda: shown(page) == site.hub.latest.frame.index)  # type: ignore[union-attr]
    return page
