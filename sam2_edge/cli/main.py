"""Entry point: registers the commands and turns errors into exit codes.

Exit codes: 0 success, 1 bad input or a failure of the system, 2 wrong usage, 130 interrupted. Any
other exception is a fault of the program and shows its traceback.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import warnings
from contextlib import suppress
from importlib.metadata import version
from typing import TextIO

import click
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from sam2_edge.cli.bench import bench
from sam2_edge.cli.build_engines import build_engines_command
from sam2_edge.cli.doctor import doctor
from sam2_edge.cli.entry import INTERRUPTED
from sam2_edge.cli.eval import evaluate_command
from sam2_edge.cli.export import export
from sam2_edge.cli.inspect import inspect
from sam2_edge.cli.run import run
from sam2_edge.cli.score import score
from sam2_edge.cli.segment import segment
from sam2_edge.cli.serve import serve
from sam2_edge.cli.synth import synth
from sam2_edge.cli.track import track
from sam2_edge.cli.verify import verify
from sam2_edge.errors import Sam2EdgeError, message_of


class _Group(click.Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the commands in order of registration instead of alphabetically."""
        return list(self.commands)


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(version("sam2_edge"), prog_name="sam2-edge")
@click.option("--verbose", is_flag=True, help="Show log messages.")
def cli(*, verbose: bool) -> None:
    """SAM 2 without PyTorch: export a model, segment images, track objects."""
    level = logging.INFO if verbose else logging.WARNING
    handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler])


for command in (
    *(doctor, export, build_engines_command, inspect, segment, track, run, serve),
    *(verify, bench, evaluate_command, score, synth),
):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit; an expected error prints one line, without a traceback."""
    _prepare_streams()
    # OpenCV's FFmpeg would print messages about damaged videos over the progress bar.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters is an error of `image_file`
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        code = cli.main(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # so that a full disk is an error here
    except BrokenPipeError:  # the reader, such as head, has seen enough
        code = 1
    except (Sam2EdgeError, OSError, MemoryError) as error:
        _show(f"[bold red]error:[/] {escape(message_of(error))}")
        code = 1
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _show("interrupted; output written so far is kept")
        code = INTERRUPTED
    finally:
        for stream in (sys.stdout, sys.stderr):
            _discard_unwritten(stream)
    sys.exit(code or 0)


def _prepare_streams() -> None:
    """Let names of any kind be printed, and keep the numbers of closed streams unused."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that the terminal cannot show
    # Otherwise a file opened later would get the number of a closed stream, and native libraries
    # would print into it.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _show(markup: str) -> None:
    with suppress(OSError):  # nobody can be told
        Console(stderr=True, soft_wrap=True).print(markup)


def _discard_unwritten(stream: TextIO | None) -> None:
    """Point a stream that cannot be written at nothing, or Python would complain as it exits."""
    if stream is None:  # closed by the caller
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
