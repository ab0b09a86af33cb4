"""A tracker that runs on a Triton server, used like `VideoTracker`."""

from __future__ import annotations

import queue
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam2_edge.errors import BackendError, PromptError, Sam2EdgeError, SourceError
from sam2_edge.runtime.preprocess import check_frame
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.results import DeviceMask, FrameResult, ObjectResult
from sam2_edge.triton import messages

DEFAULT_MODEL = "sam2_edge"
DEFAULT_TIMEOUT_S = 60.0


class TritonTracker:
    """Tracks objects from frame to frame on a Triton server; see `VideoTracker`.

    It takes neither PyTorch nor an engine. Its sequence ends with `close`, or on the server when no
    frame has come for a while. Masks are those of the server, bit by bit.

    Args:
        url: Host and gRPC port, such as `localhost:8001`.
        model: Name of the model.
        sequence_id: Correlation id, a number from 1 or a text; by default a random text. A
            sequence that has the same id ends.
        logits: Whether results have logits, as `FrameResult.index_mask` needs for several objects.
            The masks are then computed here.
        jpeg_quality: Send frames as JPEG of this quality, 1 to 100, instead of pixels.
        timeout_s: Longest time to wait for an answer, seconds.

    Raises:
        BackendError: If tritonclient is missing, or there is no such model.
        Sam2EdgeError: If an argument is invalid.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str = DEFAULT_MODEL,
        sequence_id: int | str | None = None,
        logits: bool = False,
        jpeg_quality: int | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        if jpeg_quality is not None and not 1 <= jpeg_quality <= 100:
            raise Sam2EdgeError(f"jpeg_quality is {jpeg_quality}; give 1 to 100")
        if sequence_id in (0, ""):
            raise Sam2EdgeError("sequence_id is empty; give a number from 1, or a text")
        self._grpc = _import_client()
        self._url, self._name, self._timeout_s = url, model, timeout_s
        self._sequence_id = sequence_id or uuid.uuid4().hex
        self._logits, self._jpeg_quality = logits, jpeg_quality
        self._answers: queue.Queue[tuple[Any, Exception | None]] = queue.Queue()
        self._started = self._known_to_server = False
        self._result: FrameResult | None = None
        self._client = self._grpc.InferenceServerClient(url)
        try:
            self._connect()
        except BaseException:
            self._client.close()
            raise

    @property
    def frame_index(self) -> int:
        """Number of the current frame, from 0; -1 before the first."""
        return -1 if self._result is None else self._result.index

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the tracked objects, in the order in which they were added."""
        return () if self._result is None else tuple(e.object_id for e in self._result.objects)

    @property
    def names(self) -> dict[int, str]:
        """Names of the tracked objects that have one, by id."""
        return {} if self._result is None else dict(self._result.names)

    def track(self, frame: NDArray[Any], prompts: Sequence[Prompt] = ()) -> FrameResult:
        """Advance to the next frame and find every object on it.

        Args:
            frame: [H, W, 3] uint8 BGR; all frames of a sequence have one size.
            prompts: Objects to add on this frame; see `VideoTracker.track`.

        Raises:
            SourceError: If the frame is invalid.
            PromptError: If a prompt is malformed.
            BackendError: If the server refuses the request or does not answer.
        """
        check_frame(frame)
        inputs = [self._image(frame)]
        if prompts:
            inputs.append(self._text(messages.PROMPTS, messages.encode_prompts(prompts)))
        return self._request(inputs)

    def prompt(
        self,
        object_id: int,
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: NDArray[Any] | None = None,
    ) -> ObjectResult:
        """Add an object on the current frame, or refine it; see `VideoTracker.prompt`.

        Raises:
            PromptError: If the prompt is malformed, or there is no frame yet.
            BackendError: If the server refuses the request or does not answer.
        """
        self.result()
        content = messages.encode_prompts([Prompt(object_id, points, labels, box, mask)])
        return self._request([self._text(messages.PROMPTS, content)])[object_id]

    def remove(self, object_id: int) -> None:
        """Stop tracking an object and drop its memory.

        Raises:
            PromptError: If the object is not tracked.
            BackendError: If the server refuses the request or does not answer.
        """
        if object_id not in self.object_ids:
            tracked = ", ".join(map(str, self.object_ids)) or "none"
            raise PromptError(f"object {object_id} is not tracked; tracked objects: {tracked}")
        ids = self._grpc.InferInput(messages.REMOVE, [1], "INT32")
        ids.set_data_from_numpy(np.array([object_id], np.int32))
        self._request([ids])

    def result(self) -> FrameResult:
        """Return the objects on the current frame, including refinements.

        Raises:
            PromptError: If there is no frame yet.
        """
        if self._result is None:
            raise PromptError("there is no frame yet; call track with the first frame")
        return self._result

    def close(self) -> None:
        """End the sequence, which frees its memory on the server, and the connection."""
        if self._client is None:
            return
        try:
            if self._known_to_server:
                with suppress(BackendError):  # it may be gone, or have ended the sequence itself
                    self._send([], end=True)
        finally:
            client, self._client = self._client, None
            client.stop_stream(cancel_requests=True)
            client.close()

    def __enter__(self) -> TritonTracker:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _connect(self) -> None:
        try:
            ready = self._client.is_model_ready(self._name, client_timeout=self._timeout_s)
        except self._grpc.InferenceServerException as error:
            raise BackendError(
                f"no Triton server answers at {self._url} ({error}); give the address of its gRPC "
                "port, such as localhost:8001"
            ) from error
        if not ready:
            raise BackendError(
                f"the server at {self._url} has no model {self._name!r} that is ready; check its "
                "name and the server's log"
            )
        self._client.start_stream(lambda result, error: self._answers.put((result, error)))

    def _request(self, inputs: list[Any]) -> FrameResult:
        answer = self._send(inputs)
        self._started = True
        self._result = self._decoded(answer)
        return self._result

    def _send(self, inputs: list[Any], *, end: bool = False) -> Any:
        if self._client is None:
            raise BackendError("this tracker is closed; open another")
        masks = messages.LOGITS if self._logits else messages.MASKS
        names = (messages.STATUS,) if end else (messages.STATUS, masks)
        starts = not self._started and not end
        self._known_to_server = True
        try:
            self._client.async_stream_infer(
                self._name,
                inputs,
                outputs=[self._grpc.InferRequestedOutput(name) for name in names],
                sequence_id=self._sequence_id,
                sequence_start=starts,
                sequence_end=end,
            )
            answer, error = self._answers.get(timeout=self._timeout_s)
        except queue.Empty:
            # A late answer would be taken for that of the next request.
            self._known_to_server = False
            self.close()
            raise BackendError(
                f"the server at {self._url} has not answered within {self._timeout_s:g} s; open "
                "another tracker, with a longer timeout_s if it is busy"
            ) from None
        except self._grpc.InferenceServerException as failure:
            error = failure
        if error is not None:
            ended = "; it was idle for too long: open another tracker" if _is_ended(error) else ""
            raise BackendError(f"{self._url}, {self._name}: {error}{ended}") from error
        return answer

    def _decoded(self, answer: Any) -> FrameResult:
        status = messages.decode_status(answer.as_numpy(messages.STATUS)[0])
        masks = answer.as_numpy(messages.LOGITS if self._logits else messages.MASKS)
        objects = tuple(
            ObjectResult(
                object_id=entry.object_id,
                source=mask if self._logits else DeviceMask(mask, _no_logits),
                iou=entry.iou,
                object_score=entry.object_score,
                frame_size=status.frame_size,
            )
            for entry, mask in zip(status.objects, masks, strict=True)
        )
        return FrameResult(
            status.index, objects, status.frame_size, status.milliseconds, status.names
        )

    def _image(self, frame: NDArray[np.uint8]) -> Any:
        if self._jpeg_quality is None:
            pixels = self._grpc.InferInput(messages.FRAME, list(frame.shape), "UINT8")
            pixels.set_data_from_numpy(np.ascontiguousarray(frame))
            return pixels
        quality = [cv2.IMWRITE_JPEG_QUALITY, self._jpeg_quality]
        written, content = cv2.imencode(".jpg", frame, quality)
        if not written:
            height, width = frame.shape[:2]
            raise SourceError(f"a frame of {width} x {height} does not fit JPEG; send pixels")
        return self._text(messages.IMAGE, content.tobytes())

    def _text(self, name: str, content: bytes) -> Any:
        text = self._grpc.InferInput(name, [1], "BYTES")
        text.set_data_from_numpy(np.array([content], np.object_))
        return text


def _import_client() -> Any:
    try:
        import tritonclient.grpc as client
    except ImportError as error:
        raise BackendError(
            f"tritonclient cannot be imported ({error}); install it with: pip install "
            "'sam2_edge[triton]'"
        ) from error
    return client


def _is_ended(error: Exception) -> bool:
    """Whether an error is Triton's own about a sequence that it has forgotten."""
    return "START flag" in str(error)


def _no_logits() -> NDArray[np.float32]:
    raise Sam2EdgeError("the logits are on the server; open the tracker with logits=True")
