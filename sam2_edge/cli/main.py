"""Entry point: the commands, and what becomes of errors.

Exit codes: 0 done, 1 bad input, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from importlib.metadata import version

import click
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from sam2_edge.cli.bench import bench
from sam2_edge.cli.doctor import doctor
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
from sam2_edge.errors import Sam2EdgeError

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("sam2_edge"), prog_name="sam2-edge")
@click.option("--verbose", is_flag=True, help="Show log messages.")
def cli(*, verbose: bool) -> None:
    """SAM 2 on edge devices: export a model, track objects through video."""
    level = logging.INFO if verbose else logging.WARNING
    handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler])


for command in (
    export,
    track,
    run,
    serve,
    segment,
    inspect,
    verify,
    bench,
    evaluate_command,
    score,
    synth,
    doctor,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit; errors of ours show as one line, without a traceback."""
    # FFmpeg inside OpenCV would print its own lines about a damaged video over the progress bar.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as cleanly as Ctrl-C
    try:
        code = cli.main(standalone_mode=False)
    except Sam2EdgeError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escape(str(error))}")
        code = 1
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        Console(stderr=True).print("interrupted; what was written is kept")
        code = INTERRUPTED
    sys.exit(code or 0)
