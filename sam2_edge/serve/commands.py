"""Commands from viewers. Their format is validated here, their content by the tracker."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.prompts import MAX_NAME_LENGTH
from sam2_edge.runtime.results import MAX_MASK_ID

MAX_POINTS = 32
MAX_BYTES = 16 * 1024
"""Maximum size of a message."""

Coordinate = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]
ObjectId = Annotated[int, Field(ge=1, le=MAX_MASK_ID)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: int = Field(ge=0, le=2**53)
    """Echoed in the answer."""


class PromptCommand(_Message):
    """Add or refine an object on the current frame; coordinates are in frame pixels."""

    type: Literal["prompt"]
    object: ObjectId
    points: list[tuple[Coordinate, Coordinate]] | None = Field(default=None, max_length=MAX_POINTS)
    labels: list[Literal[0, 1]] | None = Field(default=None, max_length=MAX_POINTS)
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = None


class ClickCommand(_Message):
    """Prompt an object with one more click on the current frame."""

    type: Literal["click"]
    object: ObjectId
    x: Coordinate
    y: Coordinate
    foreground: bool = True


class RemoveCommand(_Message):
    """Stop tracking an object."""

    type: Literal["remove"]
    object: ObjectId


class NameCommand(_Message):
    """Name an object."""

    type: Literal["name"]
    object: ObjectId
    name: str = Field(max_length=MAX_NAME_LENGTH)


class LoopCommand(_Message):
    """Drop every object, undo or redo, or pause, resume or replay the loop."""

    type: Literal["reset", "undo", "redo", "pause", "resume", "replay"]


Command = Annotated[
    PromptCommand | ClickCommand | RemoveCommand | NameCommand | LoopCommand,
    Field(discriminator="type"),
]

_ADAPTER: TypeAdapter[Command] = TypeAdapter(Command)


class CommandError(Sam2EdgeError):
    """Raised for a malformed message."""


def parse_command(text: str) -> Command:
    """Parse one JSON message.

    Raises:
        CommandError: If it is malformed; the message names the field.
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the message"
        raise CommandError(f"{where}: {first['msg']}") from error
