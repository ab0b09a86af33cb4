"""Prompts known beforehand: which object is prompted how on which frame of a source."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sam2_edge.errors import PromptError
from sam2_edge.runtime.prompts import Prompt, prompts_by_object, read_mask
from sam2_edge.runtime.results import MAX_MASK_ID

PromptsByFrame = Mapping[int, Sequence[Prompt]]
"""Prompts by frame number of the source."""


class PromptEntry(BaseModel):
    """One entry of a prompts file; coordinates in pixels, `mask` a path relative to the file."""

    model_config = ConfigDict(extra="forbid")

    frame: int = Field(ge=0)
    object: int = Field(ge=1)
    points: list[tuple[float, float]] | None = None
    labels: list[int] | None = None
    box: tuple[float, float, float, float] | None = None
    mask: str | None = None

    def prompt(self, folder: Path) -> Prompt:
        """The prompt, its mask read from `folder`."""
        mask = None if self.mask is None else read_mask(str(folder / self.mask))
        return Prompt(self.object, self.points, self.labels, self.box, mask)


_ENTRIES = TypeAdapter(list[PromptEntry])


def load_prompts(path: Path) -> PromptsByFrame:
    """Read a prompts file: a JSON list of entries.

    Raises PromptError that names the entry and what is wrong with it.
    """
    try:
        entries = _ENTRIES.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PromptError(f"{path} cannot be read: {error.strerror}; check the path") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise PromptError(f"{path}: {where}: {first['msg']}; the README shows the form") from error
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{path} is not JSON: {error}; the README shows the form") from error
    script: dict[int, list[Prompt]] = {}
    for entry in entries:
        script.setdefault(entry.frame, []).append(entry.prompt(path.parent))
    return script


def check_mask_ids(script: PromptsByFrame) -> None:
    """Raise PromptError for an object id that an indexed mask cannot hold."""
    for prompts in script.values():
        for prompt in prompts:
            if prompt.object_id > MAX_MASK_ID:
                raise PromptError(
                    f"object id {prompt.object_id} does not fit an indexed mask; use ids up to "
                    f"{MAX_MASK_ID}"
                )


def check_prompts(script: PromptsByFrame, start: int, frames: int | None) -> None:
    """Raise PromptError unless every prompt is on one of `frames` frames from `start` on, and no
    object is prompted twice on one of them.
    """
    if not any(script.values()):
        raise PromptError("no prompt is given; give a point, a box or a mask")
    for frame, prompts in script.items():
        if frame < start or (frames is not None and frame >= start + frames):
            end = "" if frames is None else f" to {start + frames - 1}"
            raise PromptError(
                f"a prompt is on frame {frame}, but the frames are {start}{end}; give one of them"
            )
        prompts_by_object(prompts)
