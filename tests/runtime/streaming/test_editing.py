"""Undo and redo of what people do with objects."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_edge import PromptError, VideoTracker
from sam2_edge.runtime.streaming.editing import MAX_STEPS, Editor
from sam2_edge.synthetic import SyntheticClip, center_click, clip


@pytest.fixture(scope="module")
def scene() -> SyntheticClip:
    return clip(3, frames=6, size=256, objects=2, split="heldout", photographs=False)


@pytest.fixture
def tracker(scene: SyntheticClip) -> VideoTracker:
    tracker = VideoTracker("nano", threads=1)
    tracker.track(scene.frames[0])
    return tracker


@pytest.fixture
def editor(tracker: VideoTracker) -> Editor:
    return Editor(tracker, max_objects=2)


def click(editor: Editor, scene: SyntheticClip, object_id: int, *, foreground: bool = True) -> None:
    x, y = center_click(scene.mask(0, object_id))
    editor.click(object_id, x, y, foreground=foreground)


def mask(tracker: VideoTracker, object_id: int) -> np.ndarray:
    return tracker.result()[object_id].mask.copy()


def test_prompts_are_taken_back_one_by_one_and_brought_back(
    editor: Editor, tracker: VideoTracker, scene: SyntheticClip
) -> None:
    click(editor, scene, 1)
    first = mask(tracker, 1)
    editor.click(1, 3.0, 3.0, foreground=False)
    second = mask(tracker, 1)
    editor.undo()
    assert np.array_equal(mask(tracker, 1), first)
    assert len(editor.state.clicks[1].points) == 1
    editor.undo()
    assert tracker.object_ids == ()
    assert (editor.state.undo, editor.state.redo) == (None, "click on object 1")
    editor.redo()
    editor.redo()
    assert np.array_equal(mask(tracker, 1), second)
    assert len(editor.state.clicks[1].points) == 2


def test_clicks_are_added_to_the_box_of_this_frame_only(
    editor: Editor, tracker: VideoTracker, scene: SyntheticClip
) -> None:
    editor.prompt(1, box=[40, 40, 200, 200])
    editor.click(1, 120, 120, foreground=True)
    given = editor.state.clicks[1]
    assert (given.points, given.box) == (((120, 120, 1),), (40, 40, 200, 200))
    tracker.track(scene.frames[1])
    editor.advance()
    editor.click(1, 110, 110, foreground=True)
    given = editor.state.clicks[1]
    assert (given.points, given.box) == (((110, 110, 1),), None)


def test_names_and_removals_are_undone_also_after_the_frame(
    editor: Editor, tracker: VideoTracker, scene: SyntheticClip
) -> None:
    click(editor, scene, 1)
    click(editor, scene, 2)
    editor.rename(1, "cup")
    editor.reset()
    tracker.track(scene.frames[1])
    editor.advance()
    editor.undo()
    assert sorted(tracker.object_ids) == [1, 2]
    assert tracker.names == {1: "cup"}
    assert editor.state.clicks == {}
    editor.undo()
    assert tracker.names == {}
    editor.undo()
    assert tracker.object_ids == (1,)


def test_a_new_action_ends_what_can_be_redone(editor: Editor, scene: SyntheticClip) -> None:
    click(editor, scene, 1)
    editor.undo()
    click(editor, scene, 2)
    with pytest.raises(PromptError, match="nothing to redo"):
        editor.redo()


def test_a_refused_action_is_no_step(editor: Editor, scene: SyntheticClip) -> None:
    click(editor, scene, 1)
    click(editor, scene, 2)
    for refused in (
        lambda: editor.click(3, 5, 5, foreground=True),
        lambda: editor.click(1, 999, 5, foreground=True),
        lambda: editor.remove(7),
        lambda: editor.rename(7, "cup"),
    ):
        with pytest.raises(PromptError):
            refused()
    assert editor.state.undo == "click on object 2"


def test_the_oldest_steps_are_forgotten(editor: Editor, scene: SyntheticClip) -> None:
    click(editor, scene, 1)
    for number in range(MAX_STEPS):
        editor.rename(1, f"name {number}")
    for _ in range(MAX_STEPS):
        editor.undo()
    with pytest.raises(PromptError, match="nothing to undo"):
        editor.undo()
