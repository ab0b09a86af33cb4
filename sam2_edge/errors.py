"""Errors that a user can act on: each message names the value, the limit and the remedy.

Sam2EdgeError
├── BundleError       a bundle folder that cannot be used as it is
├── CheckpointError   weights that do not fit a known model
├── ExportError       a graph that could not be made or does not agree with PyTorch
├── BackendError      a backend that is missing or cannot run a graph
├── PromptError       a point, box or mask that cannot be used
├── SourceError       a video or image that cannot be read
├── SinkError         a result that cannot be written
└── LoopError         a camera loop that has ended
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "BackendError",
    "BundleError",
    "CheckpointError",
    "ExportError",
    "LoopError",
    "PromptError",
    "Sam2EdgeError",
    "SinkError",
    "SourceError",
    "without_traceback",
]


@contextmanager
def without_traceback() -> Iterator[None]:
    """For commands run as `python -m`: an error of ours ends the process with its message alone."""
    try:
        yield
    except Sam2EdgeError as error:
        sys.exit(f"error: {error}")


class Sam2EdgeError(Exception):
    """Base of every error that sam2_edge raises on purpose."""


class BundleError(Sam2EdgeError):
    """A bundle is missing, damaged, or made for something else."""


class CheckpointError(Sam2EdgeError):
    """Weights could not be loaded or do not fit the architecture."""


class ExportError(Sam2EdgeError):
    """A graph could not be exported or failed its check against PyTorch."""


class BackendError(Sam2EdgeError):
    """A backend is missing or failed to run a graph."""


class PromptError(Sam2EdgeError):
    """A prompt is malformed, empty or outside the frame."""


class SourceError(Sam2EdgeError):
    """A source of frames is missing, unreadable or ends early."""


class SinkError(Sam2EdgeError):
    """A result could not be written."""


class LoopError(Sam2EdgeError):
    """A camera loop has ended and takes no more commands."""
