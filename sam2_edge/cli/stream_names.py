"""The names of several sources: NAME=SOURCE, or made from the source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import click

from sam2_edge.errors import LoopError
from sam2_edge.runtime.sources.location import Location, SourceKind, locate
from sam2_edge.runtime.streaming.camera_hub import MAX_NAME_LENGTH, check_stream_name

_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)

_EXCLUSIVE = (SourceKind.NUMBER, SourceKind.DEVICE, SourceKind.CSI)
"""Sources that open only once at a time."""


def stream_names(sources: Sequence[str]) -> dict[str, str] | None:
    """Return the sources by the names of their streams; None for one source without a name.

    Raises:
        click.UsageError: If a name is invalid or given twice, or two streams have one device.
    """
    split = [_split(source) for source in sources]
    if len(split) == 1 and split[0][0] is None:
        return None
    _check_devices(source for _, source in split)
    given = [name for name, _ in split if name is not None]
    for name in given:
        try:
            check_stream_name(name)
        except LoopError as error:
            raise click.UsageError(str(error)) from error
        if [other.casefold() for other in given].count(name.casefold()) > 1:
            raise click.UsageError(f"the name {name} is given to two sources; give each its own")
    taken = {name.casefold() for name in given}
    named: dict[str, str] = {}
    for chosen, source in split:
        stream = chosen or _unique(_default_name(source), taken)
        taken.add(stream.casefold())
        named[stream] = source
    return named


def _split(text: str) -> tuple[str | None, str]:
    """Split NAME=SOURCE, unless all of it is a file's name."""
    match = None if Path(text).exists() else _NAMED.fullmatch(text)
    return (match[1], match[2]) if match else (None, text)


def _check_devices(sources: Iterable[str]) -> None:
    seen = set[tuple[SourceKind, str]]()
    for place in map(locate, sources):
        key = place.kind, place.text.lower()
        if place.kind in _EXCLUSIVE and key in seen:
            raise click.UsageError(
                f"{place} is given twice, and a {place.kind.value} opens once at a time; leave one "
                "out"
            )
        seen.add(key)


def _default_name(source: str) -> str:
    """Make a name that tells nothing secret: of a URL, the host only."""
    place = locate(source)
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", _telling_part(place))
    return text[: MAX_NAME_LENGTH - 4].strip("._-") or "stream"


def _telling_part(place: Location) -> str:
    if place.kind is SourceKind.NUMBER:
        return f"camera{place.text}"
    if place.kind is SourceKind.STREAM:
        try:
            return urlsplit(place.text).hostname or "stream"
        except ValueError:
            return "stream"
    if place.kind is SourceKind.PIPELINE:
        return "pipeline"
    if place.kind in (SourceKind.FILE, SourceKind.FOLDER):
        return place.path.stem or place.path.resolve().name
    return place.path.name


def _unique(name: str, taken: set[str]) -> str:
    """Add a number to a name that is taken, ignoring case as some file systems do."""
    number, candidate = 1, name
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate
