"""TritonTracker against the model under a stand-in: the same results as VideoTracker."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from sam2_edge import BackendError, Prompt, PromptError, Sam2EdgeError, SourceError
from sam2_edge.client import TritonTracker
from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sources.image_file import decode_image
from tests.helpers.clips import moving_shapes
from tests.helpers.triton import Server, install_client
from tests.triton.conftest import local_tracker

URL = "edge:8001"
FRAMES = moving_shapes(5).frames
DISC = Prompt(1, points=[(34, 38)], name="disc")
BOX = Prompt(2, box=(80, 40, 120, 80))


@pytest.fixture
def url(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    install_client(monkeypatch, {URL: server})
    return URL


def assert_equal(found: FrameResult, expected: FrameResult) -> None:
    assert (found.index, found.frame_size) == (expected.index, expected.frame_size)
    assert found.names == expected.names
    for mine, theirs in zip(found.objects, expected.objects, strict=True):
        assert (mine.object_id, mine.iou) == (theirs.object_id, theirs.iou)
        assert (mine.object_score, mine.box) == (theirs.object_score, theirs.box)
        np.testing.assert_array_equal(mine.mask, theirs.mask)


@pytest.mark.parametrize("logits", [False, True])
def test_it_does_what_a_tracker_does(url: str, server: Server, logits: bool) -> None:
    with TritonTracker(url, logits=logits) as remote, local_tracker(server) as local:
        for index, frame in enumerate(FRAMES):
            prompts = [DISC, BOX] if index == 0 else []
            assert_equal(remote.track(frame, prompts), local.track(frame, prompts))
            if index == 1:
                refined, expected = (t.prompt(1, points=[(30, 30)]) for t in (remote, local))
                np.testing.assert_array_equal(refined.mask, expected.mask)
            if index == 3:
                remote.remove(1)
                local.remove(1)
            assert_equal(remote.result(), local.result())
            assert (remote.object_ids, remote.names) == (local.object_ids, local.names)
            assert remote.frame_index == local.frame_index
        if logits:
            np.testing.assert_array_equal(remote.result().index_mask(), local.result().index_mask())


def test_a_mask_prompt_and_jpeg_frames_arrive(url: str, server: Server) -> None:
    mask = np.zeros((128, 128), np.bool_)
    mask[10:60, 10:60] = True
    _, encoded = cv2.imencode(".jpg", FRAMES[0], [cv2.IMWRITE_JPEG_QUALITY, 90])
    decoded = decode_image(encoded.tobytes(), "a frame")
    with TritonTracker(url, jpeg_quality=90) as remote, local_tracker(server) as local:
        prompts = [Prompt(1, mask=mask), Prompt(2, points=[(34, 38)])]
        assert_equal(remote.track(FRAMES[0], prompts), local.track(decoded, prompts))


def test_logits_that_stayed_on_the_server_are_named(url: str) -> None:
    with TritonTracker(url) as tracker:
        result = tracker.track(FRAMES[0], [DISC])
        with pytest.raises(Sam2EdgeError, match="open the tracker with logits=True"):
            _ = result[1].logits


def test_closing_ends_the_sequence(url: str, server: Server) -> None:
    with TritonTracker(url, sequence_id=7) as tracker:
        tracker.track(FRAMES[0], [DISC])
        assert server.open == {7}
    assert server.open == set()
    assert len(server.model._sequences) == 0
    tracker.close()
    with pytest.raises(BackendError, match="this tracker is closed; open another"):
        tracker.track(FRAMES[0])


def test_a_refused_first_frame_can_be_sent_again(url: str) -> None:
    with TritonTracker(url) as tracker:
        with pytest.raises(BackendError, match=r"edge:8001, sam2_edge: point 999,1 is outside"):
            tracker.track(FRAMES[0], [Prompt(1, points=[(999, 1)])])
        assert tracker.frame_index == -1
        assert tracker.track(FRAMES[0], [DISC]).index == 0


def test_what_can_be_checked_here_never_reaches_the_server(url: str, server: Server) -> None:
    with TritonTracker(url) as tracker:
        with pytest.raises(PromptError, match="there is no frame yet"):
            tracker.prompt(1, points=[(1, 1)])
        with pytest.raises(SourceError, match="give a uint8 array"):
            tracker.track(np.zeros((4, 4, 3), np.float32))
        with pytest.raises(PromptError, match="an empty prompt"):
            tracker.track(FRAMES[0], [Prompt(1)])
        with pytest.raises(PromptError, match="object 3 is not tracked; tracked objects: none"):
            tracker.remove(3)
    assert server.open == set()


def test_a_server_that_is_silent_is_given_up(url: str, server: Server) -> None:
    tracker = TritonTracker(url, timeout_s=0.01)
    server.silent = True
    with pytest.raises(BackendError, match=r"not answered within 0\.01 s; open another"):
        tracker.track(FRAMES[0])
    with pytest.raises(BackendError, match="this tracker is closed"):
        tracker.track(FRAMES[0])


def test_a_sequence_that_was_idle_is_named(url: str, server: Server) -> None:
    with TritonTracker(url) as tracker:
        tracker.track(FRAMES[0], [DISC])
        server.open.clear()
        with pytest.raises(BackendError, match="idle for too long: open another tracker"):
            tracker.track(FRAMES[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "nowhere:1"}, "no Triton server answers at nowhere:1"),
        ({"model": "other"}, "has no model 'other' that is ready"),
        ({"jpeg_quality": 101}, "jpeg_quality is 101; give 1 to 100"),
        ({"sequence_id": 0}, "sequence_id is empty; give a number from 1"),
    ],
)
def test_it_cannot_be_opened(url: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(Sam2EdgeError, match=message):
        TritonTracker(**{"url": url, **arguments})


def test_a_missing_tritonclient_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient", None)
    with pytest.raises(BackendError, match=r"pip install 'sam2_edge\[triton\]'"):
        TritonTracker("localhost:8001")


def test_too_many_clients_are_refused(limited: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    install_client(monkeypatch, {URL: limited})
    with TritonTracker(URL) as first, TritonTracker(URL) as second, TritonTracker(URL) as third:
        first.track(FRAMES[0], [DISC])
        second.track(FRAMES[0], [DISC])
        with pytest.raises(BackendError, match="2 sequences are open, which is the limit"):
            third.track(FRAMES[0], [DISC])
        assert first.track(FRAMES[1]).index == 1
