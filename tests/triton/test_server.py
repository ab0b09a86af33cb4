"""The model in Triton's own server, through its own client; `make triton` installs both."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import numpy as np
import pytest

from sam2_edge import BackendError, Prompt, VideoTracker
from sam2_edge.bundle import load_bundle
from sam2_edge.client import TritonTracker
from sam2_edge.triton.repository import write_triton_repository
from tests.helpers.clips import moving_shapes
from tests.helpers.triton_server import STUB, triton_server
from tests.triton.conftest import with_values
from tests.triton.test_client import assert_equal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not STUB.is_file(), reason="the wheel nvidia-pytriton is not installed"),
]

FRAMES = moving_shapes(8).frames
DISC = Prompt(1, points=[(34, 38)], name="disc")
BOX = Prompt(2, box=(80, 40, 120, 80))
MAX_SEQUENCES = 3


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("tritonclient.grpc")
    folder = tmp_path_factory.mktemp("triton")
    model = write_triton_repository(load_bundle("nano"), folder / "models")
    with_values(model / "config.pbtxt", max_sequences=MAX_SEQUENCES, threads=1)
    with triton_server(folder / "models", folder) as address:
        yield address


@pytest.mark.parametrize("logits", [False, True])
def test_interleaved_sequences_equal_separate_trackers_bit_by_bit(url: str, logits: bool) -> None:
    with (
        TritonTracker(url, sequence_id=7, logits=logits) as first,
        TritonTracker(url, logits=logits) as second,
        VideoTracker("nano") as first_local,
        VideoTracker("nano") as second_local,
    ):
        for index, frame in enumerate(FRAMES):
            other = FRAMES[-1 - index]
            prompts = ([DISC], [BOX, DISC]) if index == 0 else ([], [])
            assert_equal(first.track(frame, prompts[0]), first_local.track(frame, prompts[0]))
            assert_equal(second.track(other, prompts[1]), second_local.track(other, prompts[1]))
            if index == 3:
                found, expected = (t.prompt(1, points=[(40, 40)]) for t in (first, first_local))
                np.testing.assert_array_equal(found.mask, expected.mask)
                second.remove(2)
                second_local.remove(2)


def test_bad_input_and_too_many_sequences_cost_nothing(url: str) -> None:
    with TritonTracker(url) as tracker, VideoTracker("nano") as local:
        assert_equal(tracker.track(FRAMES[0], [DISC]), local.track(FRAMES[0], [DISC]))
        others = [TritonTracker(url) for _ in range(20)]
        for other in others[: MAX_SEQUENCES - 1]:
            other.track(FRAMES[0], [DISC])
        for other in others[MAX_SEQUENCES - 1 :]:
            with pytest.raises(BackendError, match=f"{MAX_SEQUENCES} sequences are open"):
                other.track(FRAMES[0], [DISC])
        with pytest.raises(BackendError, match="frame is 20 x 10, but the sequence's frames are"):
            tracker.track(np.zeros((10, 20, 3), np.uint8))
        with pytest.raises(BackendError, match="999,1 is outside the frame"):
            tracker.prompt(1, points=[(999, 1)])
        for other in others:
            other.close()
        assert_equal(tracker.track(FRAMES[1]), local.track(FRAMES[1]))
        with TritonTracker(url) as another:
            assert another.track(FRAMES[0], [DISC]).index == 0


def test_a_frame_without_a_start_is_refused(url: str) -> None:
    grpc = importlib.import_module("tritonclient.grpc")
    frame = grpc.InferInput("FRAME", list(FRAMES[0].shape), "UINT8")
    frame.set_data_from_numpy(FRAMES[0])
    client = grpc.InferenceServerClient(url)
    with pytest.raises(grpc.InferenceServerException, match="must specify the START flag"):
        client.infer("sam2_edge", [frame], sequence_id=99)
    client.close()


def test_a_killed_client_leaves_the_id_to_the_next(url: str) -> None:
    first = TritonTracker(url, sequence_id="camera")
    first.track(FRAMES[0], [DISC])
    first.track(FRAMES[1])
    first._client.stop_stream()  # without END
    first._client.close()
    with TritonTracker(url, sequence_id="camera") as second:
        assert second.track(FRAMES[0], [DISC]).index == 0
