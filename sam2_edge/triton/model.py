"""The model that runs inside Triton's Python backend: a tracker for each sequence of requests."""

from __future__ import annotations

import importlib
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sam2_edge.bundle import load_bundle
from sam2_edge.errors import PromptError, Sam2EdgeError, SourceError, message_of
from sam2_edge.runtime.backends import open_backend
from sam2_edge.runtime.choices import BackendName
from sam2_edge.runtime.preprocess import Frame
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.results import DeviceMask, FrameResult, ObjectResult
from sam2_edge.runtime.sinks.jsonl import json_record
from sam2_edge.runtime.sources import SourceFrame
from sam2_edge.runtime.sources.image_file import decode_image
from sam2_edge.runtime.tracker import VideoTracker
from sam2_edge.triton import messages
from sam2_edge.triton.sequences import (
    Limits,
    Sequence,
    SequenceError,
    Sequences,
    sequence_id_of,
)

_log = logging.getLogger(__name__)

_SWEEPS = 4
"""Looks for idle sequences per idle time."""

_NOTHING = FrameResult(-1, (), (0, 0), 0.0)
"""The answer before the first frame."""

_NO_PICTURE = np.empty((0, 0, 3), np.uint8)


class SequenceModel:
    """What Triton's Python backend calls; the model.py of a repository says where the bundle is.

    Graphs are opened once per model instance. Every sequence has a tracker with its own memory.
    """

    bundle: Path

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the bundle; `args` are those of Triton, all of them text.

        Raises:
            Sam2EdgeError: If the bundle cannot be used here, or a parameter is invalid.
        """
        self._triton = importlib.import_module("triton_python_backend_utils")
        config = json.loads(args["model_config"])
        _use_gpu(args)
        limits = _limits(config)
        bundle = load_bundle(self.bundle)
        name = cast("BackendName", _parameter(config, "backend", "auto"))
        self._backend = open_backend(bundle, name, threads=_threads(config))
        self._limits = limits
        self._sequences = Sequences(lambda: VideoTracker(bundle, backend=self._backend), limits)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._sweeper = threading.Thread(target=self._close_idle, daemon=True)
        self._sweeper.start()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests one after the other; an invalid one costs only its own sender."""
        with self._lock:
            return [self._respond(request) for request in requests]

    def finalize(self) -> None:
        """Free everything."""
        self._ended.set()
        self._sweeper.join()
        with self._lock:
            self._sequences.close()
            self._backend.close()

    def _close_idle(self) -> None:
        """Close idle sequences also while no request comes."""
        while not self._ended.wait(self._limits.idle_s / _SWEEPS):
            with self._lock:
                self._sequences.close_idle()

    def _respond(self, request: Any) -> Any:
        triton = self._triton
        sequence_id = sequence_id_of(request)
        try:
            inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            result = self._advance(sequence_id, inputs)
            outputs = _outputs(result, set(request.requested_output_names()))
        except (PromptError, SourceError) as error:
            return self._refusal(message_of(error), triton.TritonError.INVALID_ARG)
        except SequenceError as error:
            return self._refusal(message_of(error), triton.TritonError.UNAVAILABLE)
        except Exception as error:  # noqa: BLE001 - it must cost no other sequence anything
            _log.exception("sequence %r", sequence_id)
            self._sequences.end(sequence_id)
            if isinstance(error, Sam2EdgeError | OSError | MemoryError):
                reason = message_of(error)
            else:
                reason = f"{type(error).__name__}: {error}"
            return self._refusal(
                f"{reason}; sequence {sequence_id!r} was closed, set START on its next frame",
                triton.TritonError.INTERNAL,
            )
        return triton.InferenceResponse([triton.Tensor(*output) for output in outputs.items()])

    def _refusal(self, message: str, code: Any) -> Any:
        error = self._triton.TritonError(message, code)
        return self._triton.InferenceResponse(output_tensors=[], error=error)

    def _advance(self, sequence_id: int | str, inputs: Mapping[str, NDArray[Any]]) -> FrameResult:
        self._sequences.close_idle()
        starts, ends = (bool(inputs[name].any()) for name in (messages.START, messages.END))
        try:
            sequences = self._sequences
            sequence = sequences.start(sequence_id) if starts else sequences.get(sequence_id)
            return self._track(sequence, inputs)
        except BaseException:
            ends = ends or starts  # a sequence whose start is refused does not exist
            raise
        finally:
            if ends:
                self._sequences.end(sequence_id)

    def _track(self, sequence: Sequence, inputs: Mapping[str, NDArray[Any]]) -> FrameResult:
        frame = _frame(inputs, self._limits.max_pixels)
        removed = inputs.get(messages.REMOVE, np.empty(0, np.int32)).ravel().tolist()
        prompts = _prompts(inputs, self._limits.max_pixels)
        result = sequence.advance(frame, prompts, removed)
        return _NOTHING if result is None else result


def _frame(inputs: Mapping[str, NDArray[Any]], max_pixels: int) -> Frame | None:
    if messages.FRAME in inputs and messages.IMAGE in inputs:
        raise SourceError(f"both {messages.FRAME} and {messages.IMAGE} are given; give one of them")
    if messages.IMAGE in inputs:
        return decode_image(_text(inputs, messages.IMAGE), messages.IMAGE, max_pixels=max_pixels)
    return inputs.get(messages.FRAME)


def _prompts(inputs: Mapping[str, NDArray[Any]], max_pixels: int) -> list[Prompt]:
    if messages.PROMPTS not in inputs:
        return []
    return messages.decode_prompts(_text(inputs, messages.PROMPTS), max_pixels=max_pixels)


def _text(inputs: Mapping[str, NDArray[Any]], name: str) -> bytes:
    return cast("bytes", inputs[name].ravel()[0])


def _outputs(result: FrameResult, wanted: set[str]) -> dict[str, NDArray[Any]]:
    """Return what was asked for; encoding takes time."""
    makers: dict[str, Callable[[FrameResult], NDArray[Any]]] = {
        messages.STATUS: _status,
        messages.MASKS: _masks,
        messages.LOGITS: _logits,
        messages.OBJECTS: _lines,
    }
    return {name: make(result) for name, make in makers.items() if name in wanted}


def _status(result: FrameResult) -> NDArray[np.object_]:
    return np.array([messages.encode_status(result)], np.object_)


def _masks(result: FrameResult) -> NDArray[np.uint8]:
    """[N, H, ceil(W / 8)] as by `numpy.packbits`."""
    height, width = result.frame_size
    if not result.objects:
        return np.empty((0, height, -(-width // 8)), np.uint8)
    return np.stack([_bits(entry) for entry in result.objects])


def _bits(entry: ObjectResult) -> NDArray[np.uint8]:
    source = entry.source
    return source.bits if isinstance(source, DeviceMask) else np.packbits(entry.mask, axis=-1)


def _logits(result: FrameResult) -> NDArray[np.float32]:
    if not result.objects:
        return np.empty((0, 0, 0), np.float32)
    return np.stack([entry.logits for entry in result.objects])


def _lines(result: FrameResult) -> NDArray[np.object_]:
    frame = SourceFrame(result.index, f"{result.index:05d}", _NO_PICTURE)
    records = [json_record(frame, result, entry) for entry in result.objects]
    return np.array([json.dumps(record).encode() for record in records], np.object_)


def _limits(config: Mapping[str, Any]) -> Limits:
    idle_us = int(config["sequence_batching"]["max_sequence_idle_microseconds"])
    return Limits(
        max_sequences=_number(config, "max_sequences"),
        max_objects=_number(config, "max_objects"),
        max_pixels=_number(config, "max_pixels"),
        idle_s=idle_us / 1e6,
    )


def _parameter(config: Mapping[str, Any], name: str, default: str = "") -> str:
    return str(config.get("parameters", {}).get(name, {}).get("string_value", default))


def _number(config: Mapping[str, Any], name: str) -> int:
    text = _parameter(config, name)
    if not text.isdecimal() or int(text) < 1:
        raise Sam2EdgeError(f"{name} is {text!r} in config.pbtxt; give 1 or more, as an integer")
    return int(text)


def _threads(config: Mapping[str, Any]) -> int | None:
    """Return the CPU threads of an instance: by default its share of the cores."""
    if _parameter(config, "threads"):
        return _number(config, "threads")
    instances = sum(group.get("count", 1) for group in config.get("instance_group", []))
    return max(1, len(os.sched_getaffinity(0)) // instances) if instances > 1 else None


def _use_gpu(args: Mapping[str, str]) -> None:
    """Let the backend see only the GPU of this instance, which is a process of its own."""
    if args.get("model_instance_kind") != "GPU":
        return
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    device = int(args["model_instance_device_id"])
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[device] if device < len(visible) else str(device)
