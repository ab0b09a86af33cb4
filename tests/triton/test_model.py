"""model.py under a stand-in for Triton: sequences, outputs, and what bad input costs others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from sam2_edge import Prompt, VideoTracker
from sam2_edge.runtime.results import FrameResult, encode_rle
from sam2_edge.runtime.tracker import VideoTracker as Tracker
from sam2_edge.triton.messages import decode_status
from tests.helpers.clips import moving_shapes
from tests.helpers.triton import Server, TritonError
from tests.triton.conftest import OpenServer, local_tracker

FRAMES = moving_shapes(6).frames
DISC = [{"object": 1, "points": [[34, 38]], "name": "disc"}]


def as_json(entries: Any) -> bytes:
    return json.dumps(entries).encode()


def start(server: Server, sequence_id: int | str = 1) -> dict[str, Any]:
    return server.infer(sequence_id, start=True, FRAME=FRAMES[0], PROMPTS=as_json(DISC))


def assert_equal(answer: dict[str, Any], expected: FrameResult) -> None:
    status = decode_status(answer["STATUS"][0])
    assert (status.index, status.frame_size) == (expected.index, expected.frame_size)
    assert status.names == expected.names
    found = [(e.object_id, e.iou, e.object_score) for e in status.objects]
    assert found == [(e.object_id, e.iou, e.object_score) for e in expected.objects]
    for bits, logits, line, entry in zip(
        answer["MASKS"], answer["LOGITS"], answer["OBJECTS"], expected.objects, strict=True
    ):
        np.testing.assert_array_equal(bits, np.packbits(entry.mask, axis=-1))
        np.testing.assert_array_equal(logits, entry.logits)
        record = json.loads(line)
        assert (record["object"], record["rle"]) == (entry.object_id, entry.to_rle())


def test_interleaved_sequences_equal_separate_trackers_bit_by_bit(server: Server) -> None:
    box = [{"object": 7, "box": [20, 20, 60, 60]}, {"object": 8, "points": [[100, 60]]}]
    with local_tracker(server) as first, local_tracker(server) as second:
        for index, frame in enumerate(FRAMES):
            other = FRAMES[-1 - index]
            begins = index == 0
            prompts = {"PROMPTS": as_json(DISC)} if begins else {}
            boxes = {"PROMPTS": as_json(box)} if begins else {}
            answers = server.infer_all(
                [
                    server.request(1, begins, False, None, {"FRAME": frame, **prompts}),
                    server.request("cam", begins, False, None, {"FRAME": other, **boxes}),
                ]
            )
            asked = [Prompt(1, points=[(34, 38)], name="disc")] if begins else []
            boxed = [Prompt(7, box=(20, 20, 60, 60)), Prompt(8, points=[(100, 60)])]
            assert_equal(answers[0], first.track(frame, asked))
            assert_equal(answers[1], second.track(other, boxed if begins else []))


def test_prompts_at_any_time_refine_add_and_remove_objects(server: Server) -> None:
    start(server)
    with local_tracker(server) as tracker:
        tracker.track(FRAMES[0], [Prompt(1, points=[(34, 38)], name="disc")])
        refined = [{"object": 1, "points": [[34, 38], [5, 5]], "labels": [1, 0]}]
        tracker.prompt(1, points=[(34, 38), (5, 5)], labels=[1, 0])
        assert_equal(server.infer(1, PROMPTS=as_json(refined)), tracker.result())
        mask = tracker.result()[1].mask
        added = [{"object": 2, "mask": encode_rle(mask), "name": "copy"}]
        expected = tracker.track(FRAMES[1], [Prompt(2, mask=mask, name="copy")])
        assert_equal(server.infer(1, FRAME=FRAMES[1], PROMPTS=as_json(added)), expected)
        tracker.remove(1)
        assert_equal(server.infer(1, REMOVE=np.array([1], np.int32)), tracker.result())


def test_an_encoded_image_is_a_frame(server: Server) -> None:
    png = cv2.imencode(".png", FRAMES[0])[1].tobytes()
    answer = server.infer(1, start=True, IMAGE=png, PROMPTS=as_json(DISC))
    with local_tracker(server) as tracker:
        expected = tracker.track(FRAMES[0], [Prompt(1, points=[(34, 38)], name="disc")])
        assert_equal(answer, expected)


def test_only_what_is_asked_for_is_returned(server: Server) -> None:
    answer = server.infer(1, start=True, outputs=["STATUS", "MASKS"], FRAME=FRAMES[0])
    assert answer.keys() == {"STATUS", "MASKS"}
    assert answer["MASKS"].shape == (0, 128, 16)


def test_a_start_without_a_frame_opens_an_empty_sequence(server: Server) -> None:
    assert decode_status(server.infer(1, start=True)["STATUS"][0]).index == -1
    assert decode_status(server.infer(1, FRAME=FRAMES[0])["STATUS"][0]).index == 0


Refused = Callable[[Server], object]

REFUSED: dict[str, tuple[Refused, str]] = {
    "another size": (
        lambda s: s.infer(1, FRAME=np.zeros((10, 20, 3), np.uint8)),
        r"20 x 10, but the sequence's frames are 128 x 128; end the sequence",
    ),
    "too large": (
        lambda s: s.infer(1, FRAME=np.zeros((200, 200, 3), np.uint8)),
        r"200 x 200; the limit is 20,000 pixels: .* max_pixels",
    ),
    "a large image": (
        lambda s: s.infer(1, IMAGE=cv2.imencode(".png", np.zeros((200, 200), "u1"))[1].tobytes()),
        r"IMAGE is 200 x 200; .* up to 20,000 pixels",
    ),
    "no image": (lambda s: s.infer(1, IMAGE=b"abc"), r"IMAGE cannot be decoded as an image"),
    "two frames": (lambda s: s.infer(1, FRAME=FRAMES[1], IMAGE=b"abc"), r"both FRAME and IMAGE"),
    "no JSON": (lambda s: s.infer(1, PROMPTS=b"{"), r"PROMPTS is not valid JSON"),
    "a path": (
        lambda s: s.infer(1, PROMPTS=as_json([{"object": 2, "mask": "/etc/passwd"}])),
        r"PROMPTS: 0\.mask: Input should be a valid dictionary",
    ),
    "a vast mask": (
        lambda s: s.infer(
            1,
            PROMPTS=as_json([{"object": 2, "mask": {"size": [16384, 16384], "counts": [2**28]}}]),
        ),
        r"PROMPTS: 0: a mask is 16384 x 16384; .* up to 20,000 pixels",
    ),
    "a frame number": (
        lambda s: s.infer(1, PROMPTS=as_json([{"frame": 0, "object": 2}])),
        r"PROMPTS: an entry has a frame; leave it out",
    ),
    "outside": (
        lambda s: s.infer(
            1, FRAME=FRAMES[1], PROMPTS=as_json([{"object": 2, "points": [[999, 1]]}])
        ),
        r"999,1 is outside",
    ),
    "too many objects": (
        lambda s: s.infer(
            1, PROMPTS=as_json([{"object": i, "points": [[9, 9]]} for i in (2, 3, 4)])
        ),
        r"would be 4 objects; the limit is 3 per sequence",
    ),
    "an unknown object": (
        lambda s: s.infer(1, FRAME=FRAMES[1], REMOVE=np.array([9], np.int32)),
        r"object 9 is not tracked; tracked objects: 1",
    ),
    "no such sequence": (lambda s: s.infer(5, FRAME=FRAMES[1]), "must specify the START flag"),
    "too many sequences": (
        lambda s: [s.infer(i, start=True, FRAME=FRAMES[0]) for i in (11, 12)],
        r"2 sequences are open, .* max_sequences",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line_and_changes_no_sequence(limited: Server, case: str) -> None:
    server = limited
    start(server)
    send, message = REFUSED[case]
    with pytest.raises(TritonError, match=message) as raised:
        send(server)
    assert "\n" not in str(raised.value)
    with local_tracker(server) as tracker:
        tracker.track(FRAMES[0], [Prompt(1, points=[(34, 38)], name="disc")])
        assert_equal(server.infer(1, FRAME=FRAMES[1]), tracker.track(FRAMES[1]))


def test_a_refused_start_leaves_nothing_open(open_server: OpenServer) -> None:
    server = open_server(max_sequences=1)
    with pytest.raises(TritonError, match="not valid JSON"):
        server.infer(1, start=True, FRAME=FRAMES[0], PROMPTS=b"{")
    with pytest.raises(TritonError, match=r"sequence 1 is not open: its start was refused"):
        server.infer(1, FRAME=FRAMES[0])
    start(server, 2)


def test_ten_thousand_sequences_are_refused_beyond_the_limit(limited: Server) -> None:
    server = limited
    start(server)
    requests = [server.request(i, True, False, ["STATUS"], {}) for i in range(2, 10_001)]
    answers = server.infer_all(requests)
    refused = [str(each) for each in answers if isinstance(each, TritonError)]
    assert len(refused) == 9_998
    assert all("2 sequences are open" in message for message in refused)
    assert decode_status(server.infer(1, FRAME=FRAMES[1])["STATUS"][0]).index == 1


def test_end_and_another_start_free_the_memory(server: Server, closed: list[Tracker]) -> None:
    start(server)
    answer = server.infer(1, end=True, FRAME=FRAMES[1])
    assert decode_status(answer["STATUS"][0]).index == 1
    assert len(closed) == 1
    start(server)
    assert decode_status(start(server)["STATUS"][0]).index == 0
    assert len(closed) == 2


def test_idle_sequences_are_closed_while_no_request_comes(
    open_server: OpenServer, closed: list[Tracker]
) -> None:
    server = open_server(idle_us=20_000)
    start(server)
    sweeper = server.model._sweeper
    while not closed:
        assert sweeper.is_alive()
        sweeper.join(0.01)
    with pytest.raises(TritonError, match=r"not open: .* idle for more than 0\.02 s; set START"):
        server.infer(1, FRAME=FRAMES[1])


def test_a_fault_closes_its_own_sequence_only(
    server: Server, closed: list[Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    start(server, "good")
    start(server, "bad")
    with monkeypatch.context() as patch:
        patch.setattr(VideoTracker, "track", lambda *_: 1 / 0)
        with pytest.raises(TritonError, match=r"ZeroDivisionError: .* sequence 'bad' was closed"):
            server.infer("bad", FRAME=FRAMES[1])
    assert len(closed) == 1
    assert decode_status(server.infer("good", FRAME=FRAMES[1])["STATUS"][0]).index == 1


@pytest.mark.parametrize("value", ["0", "many", ""])
def test_an_invalid_parameter_is_named(open_server: OpenServer, value: str) -> None:
    with pytest.raises(Exception, match=f"max_sequences is '{value}' in config.pbtxt; give 1"):
        open_server(max_sequences=value)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[Tracker]:
    """Trackers that were closed."""
    trackers: list[Tracker] = []
    close = VideoTracker.close

    def record(tracker: Tracker) -> None:
        close(tracker)
        trackers.append(tracker)

    monkeypatch.setattr(VideoTracker, "close", record)
    return trackers
