"""The page in a browser: a scene that stands still, and what is on display."""

from __future__ import annotations

import threading
import time

import numpy as np
from playwright.sync_api import Page, expect

from sam2_edge.synthetic import center_click
from sam2_edge.synthetic.camera import SyntheticCamera
from tests.helpers.site import Site

SEED, SIZE = 16, 320
STILL_FRAME = 5
"""A frame that shows all objects."""

DESKTOP = {"width": 1200, "height": 800}


class SlowCamera(SyntheticCamera):
    """A synthetic camera slow enough for a browser on the same machine.

    The scene stands still at `STILL_FRAME` unless `go` is set.
    """

    def __init__(self) -> None:
        super().__init__(SEED, size=SIZE, objects=2, paced=False)
        self.go = threading.Event()
        self.positions: list[int] = []

    def read(self):
        time.sleep(0.1)
        last = self.positions[-1] if self.positions else STILL_FRAME - 1
        last = last + 1 if self.go.is_set() else STILL_FRAME
        self.positions.append(last)
        return self.clip.frames[self.position(last)]


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


def center_of(page: Page, site: Site, object_id: int) -> tuple[float, float]:
    return at(page, *center_click(truth(site, shown(page), object_id)))


def add_by_click(page: Page, site: Site, object_id: int, rows: int = 1) -> None:
    """Add an object of the scene, whatever is at its place."""
    page.click("#add")
    page.mouse.click(*center_of(page, site, object_id))
    expect(page.locator("[data-object][data-present]")).to_have_count(rows)


def draw_box(page: Page, site: Site, object_id: int) -> None:
    rows, columns = np.nonzero(truth(site, shown(page), object_id))
    page.mouse.move(*at(page, columns.min(), rows.min()))
    page.mouse.down()
    page.mouse.move(*at(page, columns.max(), rows.max()), steps=5)
    page.mouse.up()


def objects(site: Site) -> list[int]:
    return [entry.object_id for entry in site.hub.latest.result.objects]  # type: ignore[union-attr]


def clicks(site: Site, object_id: int) -> list[int]:
    """The labels of an object's clicks on this frame."""
    given = site.hub.latest.edits.clicks.get(object_id)  # type: ignore[union-attr]
    return [] if given is None else [sign for _, _, sign in given.points]


def selected(page: Page) -> list[str]:
    rows = page.locator("#objects li.selected")
    return [row.get_attribute("data-object") or "" for row in rows.all()]


def draw_box_anywhere(page: Page) -> None:
    page.mouse.move(*at(page, 80, 80))
    page.mouse.down()
    page.mouse.move(*at(page, 200, 200), steps=5)
    page.mouse.up()
    expect(page.locator("[data-object][data-present]")).to_have_count(1)
