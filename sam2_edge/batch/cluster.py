"""Runs tasks on a Ray cluster, one actor per GPU or share of cores."""

from __future__ import annotations

import logging
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sam2_edge.batch.work import Work
from sam2_edge.errors import BackendError

Task = TypeVar("Task")
Result = TypeVar("Result")

LOCAL = "local"
"""Address that starts a cluster on this machine."""

ATTEMPTS = 3
"""How often a task may be on a worker that dies."""

WAIT_S = 60.0
"""Time without any result after which a log message says what is waited for."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Where workers run, and what each takes.

    Attributes:
        address: Of a Ray cluster, such as `auto` or `ray://head:10001`, or `local`.
        cpus: Cores per worker, which are its threads.
        gpus: GPUs per worker; a fraction shares one.
        workers: Number of workers; None for as many as the cluster has room for.
    """

    address: str
    cpus: int = 1
    gpus: float = 0.0
    workers: int | None = None


@dataclass(slots=True)
class _Flight(Generic[Task]):
    """A task, and how many workers have died with it."""

    task: Task
    deaths: int = 0


@dataclass(slots=True)
class _Team(Generic[Task]):
    """Workers by the reference that each will answer next: its start, or the result of a task."""

    starting: dict[Any, Any] = field(default_factory=dict)
    running: dict[Any, tuple[Any, _Flight[Task]]] = field(default_factory=dict)


class Cluster(Generic[Task, Result]):
    """Runs tasks in actors of a Ray cluster.

    A worker that dies, alone or with its node, costs only the task in flight, which another worker
    takes. Its replacement starts as soon as the cluster has room. A worker gets its next task when
    it has finished one, so that no queue fills up.

    Args:
        work: What a worker does. Its files must be at the same place on every node.
        options: Where workers run.

    Raises:
        BackendError: If Ray is missing or the cluster cannot be reached.
    """

    def __init__(self, work: Work[Task, Result], options: ClusterOptions) -> None:
        try:
            import ray
        except ImportError as error:
            raise BackendError(
                f"--ray needs Ray ({error}); install it with: pip install 'sam2_edge[ray]'"
            ) from error
        self._ray, self._work, self._options = ray, work, options
        if not ray.is_initialized():
            _connect(ray, options.address)

    def run(
        self, tasks: Sequence[Task], _on_frames: Callable[[int], None] = lambda _count: None
    ) -> Generator[Result, None, None]:
        """Run tasks and yield results as they finish; an error in a worker is raised here.

        Frames are not reported before their task is finished.
        """
        waiting = deque(_Flight(task) for task in tasks)
        team = _Team[Task]()
        for _ in range(min(self._room(), len(tasks))):
            self._start(team)
        try:
            while waiting or team.running:
                reference = self._next(team)
                if reference in team.starting:
                    self._begin(team, reference, waiting)
                else:
                    yield from self._end(team, reference, waiting)
        finally:
            for actor in [*team.starting.values(), *(a for a, _ in team.running.values())]:
                self._ray.kill(actor)

    def _room(self) -> int:
        """Number of workers: as asked, or as many as fit into the cluster, at least one."""
        if self._options.workers is not None:
            return self._options.workers
        total = self._ray.cluster_resources()
        fits = [total.get("CPU", 0) / self._options.cpus]
        if self._options.gpus:
            fits.append(total.get("GPU", 0) / self._options.gpus)
        return max(1, math.floor(min(fits)))

    def _start(self, team: _Team[Task]) -> None:
        options = {"num_cpus": self._options.cpus, "num_gpus": self._options.gpus}
        actor = self._ray.remote(_Worker).options(**options).remote(self._work, self._options.cpus)
        team.starting[actor.ready.remote()] = actor

    def _next(self, team: _Team[Task]) -> Any:
        """Wait for the next answer of a worker."""
        references = [*team.running, *team.starting]
        while True:
            done, _ = self._ray.wait(references, num_returns=1, timeout=WAIT_S)
            if done:
                return done[0]
            if not team.running:
                _log.warning(
                    "no worker has started for %.0f s: the cluster has no node with %s free cores "
                    "and %s GPUs",
                    *(WAIT_S, self._options.cpus, self._options.gpus),
                )

    def _begin(self, team: _Team[Task], reference: Any, waiting: deque[_Flight[Task]]) -> None:
        """Give a worker that has started its first task."""
        actor = team.starting.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayActorError:  # its node went while it started
            self._start(team)
        else:
            self._give(team, actor, waiting)

    def _end(
        self, team: _Team[Task], reference: Any, waiting: deque[_Flight[Task]]
    ) -> Generator[Result, None, None]:
        """Take the result of a task, and give its worker the next."""
        actor, flight = team.running.pop(reference)
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayActorError:
            self._start(team)
            flight.deaths += 1
            if flight.deaths < ATTEMPTS:
                waiting.appendleft(flight)
            else:
                yield self._work.lost(flight.task, f"its worker died {ATTEMPTS} times")
        else:
            self._give(team, actor, waiting)
            yield result

    def _give(self, team: _Team[Task], actor: Any, waiting: deque[_Flight[Task]]) -> None:
        if waiting:
            flight = waiting.popleft()
            team.running[actor.handle.remote(flight.task)] = (actor, flight)
        else:
            self._ray.kill(actor)


class _Worker:
    """An actor."""

    def __init__(self, work: Work[Any, Any], threads: int) -> None:
        self._handle = work.open(threads, lambda: False, lambda: None)

    def ready(self) -> None:
        """Answer that it has started."""

    def handle(self, task: Any) -> Any:
        """Handle a task."""
        return self._handle(task)


def _connect(ray: Any, address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unasked
    where = {"include_dashboard": False} if address == LOCAL else {"address": address}
    try:
        ray.init(**where, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, OSError) as error:
        raise BackendError(
            f"the Ray cluster {address} cannot be reached ({error}); check the address, or use "
            "--ray local"
        ) from error
