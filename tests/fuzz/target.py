"""What a target is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from sam2_edge.errors import Sam2EdgeError

ANSWERS = (Sam2EdgeError, click.ClickException, click.exceptions.Exit, click.Abort)
"""What bad input may raise."""

MAX_PIXELS = 2**24
"""Largest picture that is decoded here: the largest that users may have takes seconds, rightly."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that takes input from outside.

    Attributes:
        check: Feeds one input, with a folder that is kept between inputs; raises anything but
            `ANSWERS` if there is a fault.
        seeds: Makes valid inputs.
        is_json: Whether inputs are JSON, so that values are mutated rather than bytes.
        most: Inputs of a run at most, of slow targets.
    """

    check: Callable[[bytes, Path], None]
    seeds: Callable[[], list[bytes]]
    is_json: bool = False
    most: int | None = None

    def feed(self, data: bytes, folder: Path) -> None:
        """Check one input; errors that users get as one line are in order."""
        try:
            self.check(data, folder)
        except ANSWERS as error:
            # A message that cannot be printed is a traceback at the command line.
            str(error).encode("utf-8", "backslashreplace")
