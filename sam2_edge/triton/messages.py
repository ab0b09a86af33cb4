"""What client and model tell each other: names of the tensors, and JSON in some of them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from sam2_edge.errors import PromptError, Sam2EdgeError
from sam2_edge.runtime.prompts import Prompt, binary_mask, check_prompt
from sam2_edge.runtime.results import FrameResult, decode_rle, encode_rle
from sam2_edge.runtime.sources.prompt_file import ObjectEntry, check_entries, parse_json

FRAME, IMAGE, PROMPTS, REMOVE = "FRAME", "IMAGE", "PROMPTS", "REMOVE"
"""Inputs: a frame as pixels or as an image file, prompts, and ids of objects to remove."""

STATUS, MASKS, LOGITS, OBJECTS = "STATUS", "MASKS", "LOGITS", "OBJECTS"
"""Outputs: scores and sizes, masks as bits or as logits, and the lines of a JSON Lines file."""

START, END = "START", "END"
"""Control inputs, which Triton sets."""

MAX_PROMPTS_BYTES = 16 * 2**20


class RunLengths(BaseModel):
    """COCO's run lengths, compressed or not."""

    model_config = ConfigDict(extra="forbid")

    size: tuple[int, int]
    counts: str | list[int]


class _RemoteEntry(ObjectEntry):
    """An entry of a prompts file without its frame; a mask is not a path, but run lengths."""

    mask: RunLengths | None = None


def encode_prompts(prompts: Sequence[Prompt]) -> bytes:
    """Return prompts as JSON.

    Raises:
        PromptError: If one is malformed.
    """
    return json.dumps([_entry(prompt) for prompt in prompts]).encode()


def _entry(prompt: Prompt) -> dict[str, Any]:
    check_prompt(prompt)
    entry: dict[str, Any] = {"object": int(prompt.object_id)}
    for field in ("points", "labels", "box"):
        value = getattr(prompt, field)
        if value is not None:
            entry[field] = np.asarray(value).tolist()
    if prompt.mask is not None:
        entry["mask"] = encode_rle(binary_mask(np.asarray(prompt.mask)))
    if prompt.name is not None:
        entry["name"] = prompt.name
    return entry


def decode_prompts(content: bytes, *, max_pixels: int) -> list[Prompt]:
    """Read prompts from JSON.

    Args:
        content: A list of entries as in a prompts file, without their frame.
        max_pixels: Largest size of a mask: a few bytes of run lengths may stand for gigabytes.

    Raises:
        PromptError: If it is too large, no JSON, or an entry is invalid; the message names it.
    """
    if len(content) > MAX_PROMPTS_BYTES:
        raise PromptError(
            f"{PROMPTS} has {len(content)} bytes; give up to {MAX_PROMPTS_BYTES} per request"
        )
    try:
        entries = parse_json(content)
    except (ValueError, RecursionError) as error:
        raise PromptError(
            f"{PROMPTS} is not valid JSON: {error}; give a list of prompts"
        ) from error
    if isinstance(entries, list) and any(
        isinstance(each, dict) and "frame" in each for each in entries
    ):
        raise PromptError(
            f"{PROMPTS}: an entry has a frame; leave it out: prompts are for the frame of the "
            "request, or for the latest"
        )
    checked = check_entries(_RemoteEntry, entries, PROMPTS)
    return [_prompt(index, entry, max_pixels) for index, entry in enumerate(checked)]


def _prompt(index: int, entry: _RemoteEntry, max_pixels: int) -> Prompt:
    try:
        mask = None if entry.mask is None else _mask(entry.mask, max_pixels)
        prompt = Prompt(entry.object, entry.points, entry.labels, entry.box, mask, entry.name)
        check_prompt(prompt)
    except Sam2EdgeError as error:
        raise PromptError(f"{PROMPTS}: {index}: {error}") from error
    return prompt


def _mask(given: RunLengths, max_pixels: int) -> NDArray[np.bool_]:
    height, width = given.size
    if height * width > max_pixels:
        raise PromptError(
            f"a mask is {width} x {height}; give one of the frame's size, up to {max_pixels:,} "
            "pixels"
        )
    return decode_rle(given.model_dump())


@dataclass(frozen=True, slots=True)
class ObjectStatus:
    """One object of a `Status`; fields as in `ObjectResult`."""

    object_id: int
    iou: float
    object_score: float


@dataclass(frozen=True, slots=True)
class Status:
    """A result without its masks; fields as in `FrameResult`."""

    index: int
    frame_size: tuple[int, int]
    milliseconds: float
    objects: tuple[ObjectStatus, ...]
    names: dict[int, str]


def encode_status(result: FrameResult) -> bytes:
    """Return the output `STATUS` for a result; numbers keep all of their digits."""
    objects = [
        {
            "object": entry.object_id,
            "name": result.names.get(entry.object_id),
            "present": entry.present,
            "iou": _finite(entry.iou),
            "object_score": _finite(entry.object_score),
        }
        for entry in result.objects
    ]
    height, width = result.frame_size
    status = {
        "frame": result.index,
        "height": height,
        "width": width,
        "milliseconds": round(result.milliseconds, 3),
        "objects": objects,
    }
    return json.dumps(status).encode()


def decode_status(content: bytes) -> Status:
    """Read the output `STATUS`.

    Raises:
        Sam2EdgeError: If it is not one.
    """
    try:
        given = json.loads(content)
        objects = given["objects"]
        return Status(
            index=given["frame"],
            frame_size=(given["height"], given["width"]),
            milliseconds=given["milliseconds"],
            objects=tuple(
                ObjectStatus(each["object"], _number(each["iou"]), _number(each["object_score"]))
                for each in objects
            ),
            names={each["object"]: each["name"] for each in objects if each["name"]},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Sam2EdgeError(
            f"{STATUS} cannot be read ({error!r}); use the same sam2_edge as the server"
        ) from error


def _finite(value: float) -> float | None:
    """Return a number for JSON, which has no NaN or infinity: both become None."""
    return float(value) if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
