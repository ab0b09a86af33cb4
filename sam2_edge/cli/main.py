"""Entry point: registers the commands and turns errors into exit codes.

Exit codes: 0 success, 1 bad input or a failure of the system, 2 wrong usage, 130 interrupted. Any
other exception is a fault of the program and shows its traceback.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from collections import UserDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

import click
from click.shell_completion import CompletionItem

from sam2_edge.cli.output import verbosity_options, with_logging
from sam2_edge.cli.signals import INTERRUPTED, was_interrupted
from sam2_edge.errors import Sam2EdgeError, message_of
from sam2_edge.extras import naming_the_extra

_SUMMARIES = {
    "doctor": "Check this machine and suggest what to install.",
    "export": "Export MODEL as a bundle of ONNX graphs or engines.",
    "build-engines": "Build TensorRT engines from the ONNX graphs of BUNDLE.",
    "triton": "Write BUNDLE as a model of Triton Inference Server.",
    "inspect": "Check BUNDLE and print its contents.",
    "segment": "Segment the prompted objects in IMAGE.",
    "track": "Track objects through SOURCE, a video or folder of images.",
    "batch": "Track objects through many videos, in parallel.",
    "run": "Track objects on cameras until interrupted.",
    "serve": "Track objects on cameras, controlled in a browser.",
    "verify": "Compare BUNDLE with PyTorch or with another bundle.",
    "bench": "Measure the speed of BUNDLE, alone or compared with others.",
    "eval": "Evaluate BUNDLE on DATASET: J and F of tracked objects.",
    "score": "Score MASKS against TRUTH: J and F per object.",
    "synth": "Write synthetic clips with exact masks into FOLDER.",
}
"""The first sentence of each command's help, in the order of the list of commands."""

_NAMES = {
    "build-engines": ("build_engines", "build_engines_command"),
    "eval": ("eval", "evaluate_command"),
}
"""Module and function of commands whose names differ from theirs."""


_EPILOG = """\b
Example:
  sam2-edge segment photo.jpg --bundle nano --point 320,240 --overlay overlay.png

\b
Exit codes of all commands:
  0    done
  1    bad input, a failed check of `verify`, or a failure of the system
  2    wrong usage
  130  interrupted
"""


class _Commands(UserDict[str, Any]):
    """Imports a command on first use: most need packages that `doctor` and the help do without.

    Until then its value is its summary.
    """

    def __getitem__(self, name: str) -> click.Command:
        command: click.Command | str = super().__getitem__(name)
        if isinstance(command, str):
            module, function = _NAMES.get(name, (name, name))
            imported = importlib.import_module(f"sam2_edge.cli.{module}")
            loaded: click.Command = getattr(imported, function)
            loaded.params.extend(verbosity_options())
            loaded.callback = with_logging(loaded.callback) if loaded.callback else None
            self[name] = loaded
            return loaded
        return command


class _Group(click.Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the commands in order of registration instead of alphabetically."""
        return list(self.commands)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the commands without importing them."""
        found = [
            CompletionItem(name, help=text)
            for name, text in _SUMMARIES.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; click would answer KeyboardInterrupt with an empty line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interruption:
            raise click.Abort(*interruption.args) from interruption


@click.group(
    cls=_Group,
    commands=_Commands(_SUMMARIES),
    params=verbosity_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(package_name="sam2_edge", prog_name="sam2-edge")
def cli() -> None:
    """SAM 2 without PyTorch: export a model, segment images, track objects."""


def main(before_command: Callable[[], None] = lambda: None) -> None:
    """Run the command line and exit; an expected error prints one line, without a traceback.

    Args:
        before_command: Called when everything that the command needs at first is imported.
    """
    _prepare_streams()
    # OpenCV's FFmpeg would print messages about damaged videos over the progress bar.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters is an error of `image_file`
    try:
        with naming_the_extra():
            _import_command(sys.argv[1:])
            before_command()
            code = cli.main(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # so that a full disk is an error here
    except BrokenPipeError:  # the reader, such as head, has seen enough
        code = 1
    except (Sam2EdgeError, OSError, MemoryError) as error:
        if was_interrupted():  # safetensors, for example, takes it for a damaged file
            _show("interrupted; output written so far is kept")
            code = INTERRUPTED
        else:
            _show(message_of(error), label="error: ")
            code = 1
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort) as interruption:
        kept = interruption.args[0] if interruption.args else "output written so far is kept"
        _show(f"interrupted; {kept}")
        code = INTERRUPTED
    finally:
        for stream in (sys.stdout, sys.stderr):
            _discard_unwritten(stream)
    sys.exit(code or 0)


def _import_command(arguments: list[str]) -> None:
    """Import a command before signals raise exceptions, which its imports might swallow."""
    for name in filter(cli.commands.__contains__, arguments):
        cli.commands[name]
        return


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


def _show(text: str, label: str = "") -> None:
    stream = sys.stderr
    if stream is None:  # closed by the caller
        return
    if label and stream.isatty() and "NO_COLOR" not in os.environ:
        label = click.style(label, fg="red", bold=True)
    with suppress(OSError):  # nobody can be told
        stream.write(f"{label}{text}\n")  # click.echo would ignore the encoding of the stream


def _discard_unwritten(stream: TextIO | None) -> None:
    """Point a stream that cannot be written at nothing, or Python would complain as it exits."""
    if stream is None:  # closed by the caller
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
