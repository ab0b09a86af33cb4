"""What engines run: independent tasks, and how a worker handles them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

Task_contra = TypeVar("Task_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class Work(Protocol[Task_contra, Result_co]):
    """A kind of task. It is pickled to every worker, and so are tasks and results."""

    def open(
        self, threads: int | None, stopped: Callable[[], bool], advance: Callable[[], None]
    ) -> Callable[[Task_contra], Result_co]:
        """Return the function that handles tasks in this worker, one after another.

        Args:
            threads: CPU threads of the worker; None for all cores.
            stopped: Whether the engine has been stopped; checked on every frame.
            advance: Called after every frame.
        """
        ...

    def lost(self, task: Task_contra, reason: str) -> Result_co:
        """Return the result of a task whose worker died, again and alone, or raise an error."""
        ...
