"""Objects on the page in Chromium: clicks, boxes, selection, undo and effects."""

from __future__ import annotations

import time

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from sam2_edge.synthetic import center_click
from tests.helpers.clock import wait_until
from tests.helpers.page import (
    SIZE,
    add_by_click,
    at,
    center_of,
    clicks,
    draw_box,
    objects,
    selected,
    shown,
    truth,
)
from tests.helpers.site import Site

FAST = 2
"""An object of the scene that moves far and is tracked well by nano."""

pytestmark = pytest.mark.browser


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
    add_by_click(page, site, FAST)
    found = distances(site, FAST, 100)
    assert len(found) > 20
    assert np.median(found) < SIZE / 20


def test_a_box_always_makes_a_new_object(still: Page, site: Site) -> None:
    draw_box(still, site, 1)
    wait_until(lambda: objects(site) == [1])
    assert selected(still) == ["1"]
    draw_box(still, site, 2)
    wait_until(lambda: objects(site) == [1, 2])
    assert selected(still) == ["2"]
    boxed = site.hub.latest.result[2].mask  # type: ignore[union-attr]
    true = truth(site, shown(still), 2)
    assert (boxed & true).sum() / (boxed | true).sum() > 0.5


def test_clicks_select_refine_or_add_depending_on_where_they_are(still: Page, site: Site) -> None:
    draw_box(still, site, 1)
    wait_until(lambda: objects(site) == [1])
    draw_box(still, site, 2)
    wait_until(lambda: objects(site) == [1, 2])
    expect(still.locator("[data-object][data-present]")).to_have_count(2)
    mask = site.hub.latest.result[1].mask  # type: ignore[union-attr]
    inside = at(still, *center_click(mask & ~site.hub.latest.result[2].mask))  # type: ignore[union-attr]

    still.mouse.click(*inside)  # another object's mask
    assert selected(still) == ["1"]
    assert clicks(site, 1) == []
    still.mouse.click(*inside)  # the selected object's mask
    wait_until(lambda: clicks(site, 1) == [1])
    still.mouse.click(*inside, button="right")
    wait_until(lambda: clicks(site, 1) == [1, 0])
    still.keyboard.press("Escape")
    assert selected(still) == []
    expect(still.locator("#hint")).to_contain_text("Click an object to track it")
    still.keyboard.press("n")
    still.mouse.click(*inside)  # a new object on an old one
    wait_until(lambda: objects(site) == [1, 2, 3])


def test_the_hint_says_what_a_click_would_do(still: Page, site: Site) -> None:
    still.mouse.move(*center_of(still, site, 1))
    expect(still.locator("#hint")).to_contain_text("Click to add a new object")
    draw_box(still, site, 1)
    expect(still.locator("[data-object][data-present]")).to_have_count(1)
    still.mouse.move(*at(still, *center_click(site.hub.latest.result[1].mask)))  # type: ignore[union-attr]
    expect(still.locator("#hint")).to_contain_text("Click to refine object 1")
    still.keyboard.press("Escape")
    still.mouse.move(*at(still, *center_click(site.hub.latest.result[1].mask)))  # type: ignore[union-attr]
    expect(still.locator("#hint")).to_contain_text("Click to select object 1")


def test_exclude_applies_to_the_selected_object_until_it_is_deselected(
    still: Page, site: Site
) -> None:
    draw_box(still, site, 1)
    expect(still.locator("[data-object][data-present]")).to_have_count(1)
    still.get_by_role("radio", name="Exclude").check()
    still.mouse.click(*at(still, 3, 3))
    wait_until(lambda: clicks(site, 1) == [0])
    still.keyboard.press("Escape")
    expect(still.get_by_role("radio", name="Include")).to_be_checked()


def test_a_click_far_away_adds_an_object_and_with_shift_refines(still: Page, site: Site) -> None:
    draw_box(still, site, 1)
    expect(still.locator("[data-object][data-present]")).to_have_count(1)
    far = at(still, *far_from(site.hub.latest.result[1].mask))  # type: ignore[union-attr]
    still.keyboard.down("Shift")
    still.mouse.click(*far)
    still.keyboard.up("Shift")
    wait_until(lambda: clicks(site, 1) == [1])
    still.click("#undo")
    wait_until(lambda: clicks(site, 1) == [])
    still.mouse.click(*far)
    wait_until(lambda: objects(site) == [1, 2])


def far_from(mask: np.ndarray) -> tuple[int, int]:
    """The corner of the picture that is farthest from a mask."""
    row, column = center(mask)
    return (3 if column > SIZE / 2 else SIZE - 4), (3 if row > SIZE / 2 else SIZE - 4)


def test_the_selected_object_is_marked_in_the_picture(still: Page, site: Site) -> None:
    draw_box(still, site, 1)
    expect(still.locator("[data-object][data-present]")).to_have_count(1)
    marked = still.locator("#view").screenshot()
    still.keyboard.press("Escape")
    assert still.locator("#view").screenshot() != marked


def test_every_action_is_undone_and_redone(still: Page, site: Site) -> None:
    expect(still.locator("#redo")).to_be_disabled()
    add_by_click(still, site, 1)
    name = still.locator("[data-object='1'] .name")
    name.fill("cup")
    name.press("Enter")
    wait_until(lambda: site.loop.names == {1: "cup"})
    still.click("[data-object='1'] .remove")
    expect(still.locator("#objects li")).to_have_count(0)

    expect(still.locator("#undo")).to_have_attribute("title", "Undo removal of cup (Ctrl+Z)")
    still.click("#undo")
    expect(name).to_have_value("cup")
    still.keyboard.press("Control+z")
    wait_until(lambda: site.loop.names == {})
    still.keyboard.press("Control+z")
    expect(still.locator("#objects li")).to_have_count(0)
    for _ in range(2):
        still.keyboard.press("Control+Shift+z")
    wait_until(lambda: site.loop.names == {1: "cup"})
    still.click("#reset")
    expect(still.locator("#objects li")).to_have_count(0)
    expect(still.locator("#reset")).to_be_disabled()
    expect(still.locator("#empty")).to_be_visible()


def test_clicks_on_a_removed_object_are_forgotten(still: Page, site: Site) -> None:
    add_by_click(still, site, 1)
    still.mouse.click(*center_of(still, site, 1), button="right")
    wait_until(lambda: clicks(site, 1) == [1, 0])
    still.keyboard.press("Delete")
    expect(still.locator("#objects li")).to_have_count(0)
    add_by_click(still, site, 2)
    wait_until(lambda: clicks(site, 1) == [1])


def test_effects_change_what_is_drawn(still: Page, site: Site) -> None:
    add_by_click(still, site, 1)
    pictures = set()
    for effect in ("overlay", "outline", "cutout", "blur", "pixelate", "spotlight"):
        still.select_option("#effect", effect)
        pictures.add(still.locator("#view").screenshot())
    assert len(pictures) == 6


def test_a_problem_is_shown_until_the_next_command(still: Page, site: Site) -> None:
    still.mouse.click(*at(still, 5, 5), button="right")
    expect(still.locator("#problem")).to_contain_text("Select an object first")
    add_by_click(still, site, 1)
    expect(still.locator("#problem")).to_be_hidden()


def test_a_refused_prompt_leaves_no_row(still: Page, site: Site) -> None:
    site.loop._editor._max_objects = 0
    try:
        draw_box(still, site, 1)
        expect(still.locator("#problem")).to_contain_text("remove one first")
        expect(still.locator("#objects li")).to_have_count(0)
        assert selected(still) == []
    finally:
        site.loop._editor._max_objects = None
