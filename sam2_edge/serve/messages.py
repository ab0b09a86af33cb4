"""What a viewer may ask for: checked in form here, in substance by the tracker."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sam2_edge.errors import Sam2EdgeError

MAX_POINTS = 32
MAX_NAME_LENGTH = 40
MAX_BYTES = 16 * 1024
"""Of one message."""

Coordinate = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]
ObjectId = Annotated[int, Field(ge=1, le=255)]


class _Message(BaseModel):
    """id: comes back with the answer."""

    model_config = ConfigDict(extra="forbid")

    id: int = Field(ge=0, le=2**53)


class PromptMessage(_Message):
    """Add or refine an object on the current frame; in pixels of the frame."""

    type: Literal["prompt"]
    object: ObjectId
    points: list[tuple[Coordinate, Coordinate]] | None = Field(default=None, max_length=MAX_POINTS)
    labels: list[Literal[0, 1]] | None = Field(default=None, max_length=MAX_POINTS)
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = None


class RemoveMessage(_Message):
    """Stop tracking an object."""

    type: Literal["remove"]
    object: ObjectId


class NameMessage(_Message):
    """Give an object a name."""

    type: Literal["name"]
    object: ObjectId
    name: str = Field(max_length=MAX_NAME_LENGTH)


class PlainMessage(_Message):
    """Forget every object, stay at a frame, or go on."""

    type: Literal["reset", "pause", "resume"]


Command = Annotated[
    PromptMessage | RemoveMessage | NameMessage | PlainMessage, Field(discriminator="type")
]

_ADAPTER: TypeAdapter[Command] = TypeAdapter(Command)


class MessageError(Sam2EdgeError):
    """A message that is none."""


def parse(text: str) -> Command:
    """Read one message.

    Raises MessageError that says what is wrong with it.
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the message"
        raise MessageError(f"{where}: {first['msg']}") from error
