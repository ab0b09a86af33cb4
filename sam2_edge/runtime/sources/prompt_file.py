"""Prompts files: JSON lists of prompts by frame and object."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sam2_edge.errors import PromptError
from sam2_edge.runtime.prompts import Prompt, prompts_by_object, read_mask
from sam2_edge.runtime.results import MAX_MASK_ID

PromptsByFrame = Mapping[int, Sequence[Prompt]]
"""Prompts by frame number in the source."""


class PromptEntry(BaseModel):
    """One entry of a prompts file; coordinates are in pixels, `mask` is relative to the file."""

    model_config = ConfigDict(extra="forbid")

    frame: int = Field(ge=0)
    object: int = Field(ge=1)
    points: list[tuple[float, float]] | None = None
    labels: list[int] | None = None
    box: tuple[float, float, float, float] | None = None
    mask: str | None = None

    def prompt(self, folder: Path) -> Prompt:
        """Return the prompt, reading its mask from `folder`."""
        mask = None if self.mask is None else read_mask(str(folder / self.mask))
        return Prompt(self.object, self.points, self.labels, self.box, mask)


_ENTRIES = TypeAdapter(list[PromptEntry])


def load_prompts(path: Path) -> PromptsByFrame:
    """Read a prompts file: a JSON list of `PromptEntry`.

    Raises:
        PromptError: If the file cannot be read or an entry is invalid; the message names both.
    """
    try:
        entries = _ENTRIES.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PromptError(f"{path} cannot be read: {error.strerror}; check the path") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise PromptError(
            f"{path}: {where}: {first['msg']}; the tracking guide shows the format"
        ) from error
    except (ValueError, RecursionError) as error:
        raise PromptError(
            f"{path} is not JSON: {error}; the tracking guide shows the format"
        ) from error
    prompts: dict[int, list[Prompt]] = {}
    for entry in entries:
        prompts.setdefault(entry.frame, []).append(entry.prompt(path.parent))
    return prompts


def check_mask_ids(prompts: PromptsByFrame) -> None:
    """Raise PromptError for an object id that does not fit into an indexed mask."""
    for prompt in (prompt for group in prompts.values() for prompt in group):
        if prompt.object_id > MAX_MASK_ID:
            raise PromptError(
                f"object id {prompt.object_id} does not fit an indexed mask; use ids up to "
                f"{MAX_MASK_ID}"
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
