"""What commands print, and where: results on standard output, all else on standard error.

Whatever goes to a pipe or a file is neither wrapped nor shortened, so that it can be pasted.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, Protocol

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LINE_EVERY_S = 5.0
"""Seconds between lines of progress where there is no terminal."""

_QUIET, _VERBOSE = "sam2_edge.quiet", "sam2_edge.verbose"

_UNLIMITED = 100_000
"""Columns of a pipe."""


def verbosity_options() -> list[click.Option]:
    """Return --verbose and --quiet, which are accepted before and after the command's name."""

    def remember(ctx: click.Context, option: click.Parameter, given: bool) -> None:  # noqa: FBT001
        if given:
            ctx.meta[f"sam2_edge.{option.name}"] = True
        if ctx.meta.get(_QUIET) and ctx.meta.get(_VERBOSE):
            raise click.UsageError("--verbose and --quiet exclude each other; give one of them")

    texts = {
        "--verbose": "Show log messages.",
        "--quiet": "Show results and errors only: no progress, no summary, no warnings.",
    }
    return [
        click.Option([name], is_flag=True, expose_value=False, callback=remember, help=text)
        for name, text in texts.items()
    ]


def is_quiet() -> bool:
    """Whether the running command was given --quiet."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_QUIET))


def with_logging(command: Callable[..., Any]) -> Callable[..., Any]:
    """Make a command set up logging when its options are known."""

    @wraps(command)
    def logged(*arguments: Any, **options: Any) -> Any:
        meta = click.get_current_context().meta
        handler = log_handler()
        logging.basicConfig(
            level=logging.INFO if meta.get(_VERBOSE) else logging.WARNING, handlers=[handler]
        )
        return command(*arguments, **options)

    return logged


def log_handler(formatter: logging.Formatter | None = None) -> logging.Handler:
    """Return a handler for standard error that obeys --quiet.

    Args:
        formatter: Format of the lines. By default they are for people on a terminal, and otherwise
            one line per record with its time (ISO 8601), level and logger.
    """
    handler: logging.Handler
    if formatter is None and _is_terminal(sys.stderr):
        from rich.logging import RichHandler

        handler = RichHandler(console=notes(), show_path=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(formatter or _LineFormatter("%(levelname)s %(name)s: %(message)s"))
    if is_quiet():
        handler.setLevel(logging.ERROR)
    return handler


class _LineFormatter(logging.Formatter):
    """One line per record; line breaks, such as those of a traceback, are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).astimezone()
        text = super().format(record).replace("\n", "\\n")
        return f"{when.isoformat(timespec='milliseconds')} {text}"


def results(*, silent: bool = False) -> Console:
    """Return the console for results, on standard output.

    Args:
        silent: Print nothing, since standard output takes JSON.
    """
    from rich.console import Console

    width = None if _is_terminal(sys.stdout) else _UNLIMITED
    return Console(width=width, soft_wrap=True, highlight=False, emoji=False, quiet=silent)


def notes() -> Console:
    """Return the console for progress and summaries, on standard error; silent with --quiet."""
    from rich.console import Console

    width = None if _is_terminal(sys.stderr) else _UNLIMITED
    return Console(
        stderr=True, width=width, soft_wrap=True, highlight=False, emoji=False, quiet=is_quiet()
    )


def new_table(*columns: str, title: str | None = None) -> Table:
    """Return a table whose cells are folded on a narrow terminal, never cut."""
    from rich import box
    from rich.markup import escape
    from rich.table import Column, Table

    return Table(
        *(Column(escape(name), overflow="fold") for name in columns),
        title=None if title is None else escape(title),
        title_justify="left",
        box=box.SIMPLE,
    )


def show_table(console: Console, table: Table) -> None:
    """Print a table as wide as the console allows."""
    console.print(table, soft_wrap=False)


class Advance(Protocol):
    """Counts more as done, and shows a remark, such as a rate, or none."""

    def __call__(self, remark: str, steps: int = 1) -> None:
        """Count `steps` more; 0 only shows the remark."""


@contextmanager
def progress(
    description: str, total: int | None, unit: str = "frames", *, done: int = 0
) -> Generator[Advance]:
    """Show how many of `total` are done: a bar on a terminal, otherwise a line now and then.

    Args:
        description: What is being done, such as "tracking".
        total: How many there are; None if unknown.
        unit: What is counted.
        done: How many are already done.
    """
    shown = _bar if _is_terminal(sys.stderr) and not is_quiet() else _lines
    yield from shown(description, total, unit, done)


def _bar(description: str, total: int | None, unit: str, done: int) -> Generator[Advance]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=notes(), transient=True) as bar:
        task = bar.add_task(description, total=total, completed=done, remark="")

        def advance(remark: str, steps: int = 1) -> None:
            bar.update(task, advance=steps, remark=remark)

        yield advance


def _lines(description: str, total: int | None, unit: str, done: int) -> Generator[Advance]:
    console, last_s = notes(), time.monotonic()
    of = "" if total is None else f" of {total}"

    def advance(remark: str, steps: int = 1) -> None:
        nonlocal done, last_s
        done += steps
        if time.monotonic() - last_s >= LINE_EVERY_S:
            last_s = time.monotonic()
            text = f"{description}: {done}{of} {unit}"
            console.print(f"{text}, {remark}" if remark else text, markup=False)

    yield advance


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()
