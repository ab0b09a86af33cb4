"""Prompts files: JSON lists of prompts by frame and object."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sam2_edge.errors import PromptError
from sam2_edge.runtime.paths import read_file
from sam2_edge.runtime.prompts import (
    MAX_OBJECT_ID,
    Prompt,
    check_prompt,
    checked_name,
    prompts_by_object,
)
from sam2_edge.runtime.results import MAX_MASK_ID
from sam2_edge.runtime.sources.mask_file import MaskFile

PromptsByFrame = Mapping[int, Sequence[Prompt]]
"""Prompts by frame number in the source."""


MAX_BYTES = 64 * 2**20
MAX_DIGITS = 20

_Integer = Annotated[int, Field(strict=True)]  # strict: true is not 1
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


def _checked(name: str) -> str:
    try:
        return checked_name(name)
    except PromptError as error:
        raise ValueError(str(error)) from error


class ObjectEntry(BaseModel):
    """What an entry says of an object, wherever the entry is; coordinates are in pixels."""

    model_config = ConfigDict(extra="forbid")

    object: Annotated[_Integer, Field(ge=1, le=MAX_OBJECT_ID)]
    points: list[tuple[_Number, _Number]] | None = None
    labels: list[_Integer] | None = None
    box: tuple[_Number, _Number, _Number, _Number] | None = None
    name: Annotated[str, AfterValidator(_checked)] | None = None


class PromptEntry(ObjectEntry):
    """One entry of a prompts file; `mask` is relative to the file."""

    frame: Annotated[_Integer, Field(ge=0)]
    mask: str | None = None
    stream: str | None = None
    """Name of the stream, if there are several."""

    def prompt(self, folder: Path) -> Prompt:
        """Return the prompt; its mask, in `folder` unless absolute, is decoded when it is used."""
        mask = None if self.mask is None else MaskFile(folder / self.mask, self.object)
        return Prompt(self.object, self.points, self.labels, self.box, mask, self.name)


_SYNONYMS = {
    "id": "object",
    "obj_id": "object",
    "click": "points",
    "bbox": "box",
    "frame_idx": "frame",
    "segmentation": "mask",
}
"""What other programs call the fields, where the spelling is too different."""

_Entry = TypeVar("_Entry", bound=ObjectEntry)


def load_prompts(path: Path) -> PromptsByFrame:
    """Read a prompts file: a JSON list of `PromptEntry`.

    Raises:
        PromptError: If the file cannot be read or an entry is invalid; the message names both.
    """
    return read_prompts(_read(path), str(path), path.parent)


def load_stream_prompts(path: Path, streams: Collection[str]) -> dict[str, PromptsByFrame]:
    """Read a prompts file whose entries each name their stream; returns the prompts by stream.

    Raises:
        PromptError: As `load_prompts`, and if an entry names none of `streams`.
    """
    by_stream: dict[str, dict[int, list[Prompt]]] = {name: {} for name in streams}
    known = ", ".join(streams)
    for index, entry in enumerate(check_entries(PromptEntry, _read(path), str(path))):
        if entry.stream is None:
            raise PromptError(f"{path}: {index}: there is no stream; give one of: {known}")
        if entry.stream not in by_stream:
            raise PromptError(
                f"{path}: {index}: there is no stream {entry.stream!r}; give one of: {known}"
            )
        _add(by_stream[entry.stream], entry, f"{path}: {index}", path.parent)
    return dict(by_stream)


def read_prompts(entries: Any, where: str, folder: Path) -> PromptsByFrame:
    """Check prompts as they are in a file.

    Args:
        entries: A list of `PromptEntry` as Python's json reads it.
        where: Where they are from, for errors.
        folder: That paths of masks are relative to.

    Raises:
        PromptError: If an entry is invalid; the message names it.
    """
    prompts: dict[int, list[Prompt]] = {}
    for index, entry in enumerate(check_entries(PromptEntry, entries, where)):
        if entry.stream is not None:
            raise PromptError(
                f"{where}: {index}: stream is {entry.stream!r}, but there is one source without a "
                "name; leave it out"
            )
        _add(prompts, entry, f"{where}: {index}", folder)
    return prompts


def check_entries(kind: type[_Entry], entries: Any, where: str) -> list[_Entry]:
    """Return a list of entries of one kind from what Python's json has read.

    Raises:
        PromptError: If an entry is invalid; the message says where the entries are from.
    """
    try:
        return TypeAdapter(list[kind]).validate_python(entries)  # type: ignore[valid-type]
    except ValidationError as error:
        known = list(kind.model_fields)
        raise PromptError(
            f"{where}: {_explain(error, known)}; the tracking guide shows the format"
        ) from error


def _add(prompts: dict[int, list[Prompt]], entry: PromptEntry, where: str, folder: Path) -> None:
    """Check the prompt of an entry, and add it to those of its frame."""
    prompt = entry.prompt(folder)
    try:
        check_prompt(prompt)
    except PromptError as error:
        raise PromptError(f"{where}: {error}") from error
    prompts.setdefault(entry.frame, []).append(prompt)


def _explain(error: ValidationError, known: Sequence[str]) -> str:
    """Name the first field that is wrong, and which of the known ones was probably meant."""
    # A misspelled field is both unknown and, under its right name, missing: the former says more.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    place = [str(part) for part in first["loc"]]
    where, given = ".".join(place) or "the file", first["input"]
    if first["type"] == "extra_forbidden":
        return f"{where}: {_meant(place[-1], known)}"
    if not place and isinstance(given, dict):
        return "it is a single entry; put it into a list, as in [{...}]"
    if place[-2:-1] == ["points"] and isinstance(given, (int, float)):
        return f"{where}: {given} is not a point; give a list of points, as in [[{given}, ...]]"
    return f"{where}: {first['msg']}"


def _meant(field: str, known: Sequence[str]) -> str:
    close = _SYNONYMS.get(field.lower())
    if close not in known:
        close = next(iter(difflib.get_close_matches(field.lower(), known, n=1)), None)
    if close is None:
        return f"there is no such field; the fields are {', '.join(known)}"
    return f"did you mean {close}?"


def _read(path: Path) -> Any:
    """Read a file of JSON; raise PromptError if that is not possible."""
    content = read_file(path, MAX_BYTES, error=PromptError)
    try:
        return parse_json(content)
    except (ValueError, RecursionError) as error:
        raise PromptError(
            f"{path} is not valid JSON: {error}; the tracking guide shows the format"
        ) from error


def parse_json(content: bytes) -> Any:
    """Parse JSON, also with a byte-order mark; raise ValueError for what JSON does not define."""
    return json.loads(
        content,
        parse_constant=_refuse_constant,
        parse_int=_parse_integer,
        object_pairs_hook=_unique_fields,
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number; give numbers")


def _parse_integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:  # the time to convert them is quadratic
        raise ValueError(f"a number has {len(digits)} digits; give up to {MAX_DIGITS}")
    return int(digits)


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError(f"a field is given twice in {sorted(name for name, _ in pairs)}")
    return fields


def check_mask_ids(prompts: PromptsByFrame) -> None:
    """Raise PromptError for an object id that indexed masks cannot show."""
    for prompt in (prompt for group in prompts.values() for prompt in group):
        if prompt.object_id > MAX_MASK_ID:
            raise PromptError(
                f"object id {prompt.object_id} does not fit an indexed mask (255 is no object to "
                f"evaluators); use ids up to {MAX_MASK_ID}"
            )


def check_prompts(prompts: PromptsByFrame, start: int, frames: int | None) -> None:
    """Check that there are prompts, all on frames of the source.

    Args:
        prompts: Prompts by frame number.
        start: Number of the source's first frame.
        frames: Number of its frames; None if unknown.

    Raises:
        PromptError: If there is no prompt, a frame is out of range, or an object is prompted twice
            on one frame.
    """
    if not any(prompts.values()):
        raise PromptError("no prompt is given; give a point, a box or a mask")
    for frame, group in prompts.items():
        if frame < start or (frames is not None and frame >= start + frames):
            end = "" if frames is None else f" to {start + frames - 1}"
            raise PromptError(
                f"a prompt is on frame {frame}, but the frames are {start}{end}; give one of them"
            )
        prompts_by_object(group)
