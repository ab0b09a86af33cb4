"""Datagrams contain the records of JSON Lines, and need no receiver."""

from __future__ import annotations

import json
import socket

import numpy as np
import pytest

from sam2_edge import FrameResult, ObjectResult, SinkError
from sam2_edge.runtime.sinks.udp import UdpJson
from tests.helpers.results import tracked_frame


def test_datagrams_contain_the_records_of_json_lines() -> None:
    noise = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    frame, _ = tracked_frame(4)
    large = FrameResult(4, (ObjectResult(1, noise, 0.9, 3.0, (512, 512)),), (512, 512), 1.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(60)
        sink = UdpJson("127.0.0.1", receiver.getsockname()[1])
        sink.write(*tracked_frame(3, unix_s=12.5))
        sink.write(frame, large)
        found, absent, too_large = (json.loads(receiver.recv(70_000)) for _ in range(3))
        sink.close()
    assert (found["frame"], found["object"], found["time"]) == (3, 1, 12.5)
    assert found["rle"]["size"] == [48, 64]
    assert (absent["object"], absent["present"]) == (2, False)
    assert (too_large["frame"], too_large["rle"]) == (4, None)


def test_a_missing_receiver_is_ignored_but_an_invalid_address_is_an_error() -> None:
    sink = UdpJson("127.0.0.1", 9)
    for index in range(5):
        sink.write(*tracked_frame(index))
    sink.close()
    with pytest.raises(SinkError, match="is not a valid UDP address"):
        UdpJson("no.such.host.invalid", 5)
