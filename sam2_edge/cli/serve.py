"""`sam2-edge serve`: the camera loop with a page to see and steer it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence

import click
from rich.console import Console

from sam2_edge.cli.loop_options import (
    LoopOptions,
    loop_options,
    make_loop,
    run_loop,
    stopped_by_signals,
)
from sam2_edge.cli.options import PromptCommand
from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.sources.prompt_file import check_mask_ids
from sam2_edge.runtime.streaming.loop import CameraLoop, LoopResult
from sam2_edge.runtime.streaming.stats import Meter
from sam2_edge.runtime.streaming.systemd import Watchdog


@click.command(cls=PromptCommand)
@click.argument("source")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; any but this machine's own needs a token.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option(
    "--token",
    envvar="SAM2_EDGE_TOKEN",
    help="What a viewer must know, 16 characters or more; other users see it in the list of "
    "processes, but not in SAM2_EDGE_TOKEN. [made, if needed]",
)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="URL",
    help="Origin under which a proxy shows the page, such as https://robot.example. Repeatable.",
)
@loop_options
def serve(
    source: str,
    *,
    host: str,
    port: int,
    token: str | None,
    origins: tuple[str, ...],
    options: LoopOptions,
    prompts: Sequence[Prompt],
) -> None:
    """Track objects on SOURCE, and show and steer it in a browser.

    SOURCE and outputs are as in sam2-edge run. When a file ends its last frame stays to be seen,
    until it is interrupted. /metrics is for Prometheus.
    """
    try:
        from sam2_edge.serve.app import make_app
        from sam2_edge.serve.hub import Hub
        from sam2_edge.serve.metrics import LoopMetrics
        from sam2_edge.serve.security import access_for
        from sam2_edge.serve.server import Server
    except ModuleNotFoundError as error:
        raise Sam2EdgeError(
            f"serve needs its extra ({error}); install it with: pip install 'sam2_edge[serve]'"
        ) from error
    check_mask_ids({0: prompts})
    access = access_for(host, token, origins)
    watchdog = Watchdog()
    loop = make_loop(source, options, watchdog)
    meter = Meter(loop)
    hub, metrics = Hub(loop, meter), LoopMetrics(meter)
    stopped = threading.Event()

    def see(tracked: LoopResult) -> None:
        metrics.see(tracked)
        hub.publish(tracked)

    with (
        stopped_by_signals(lambda: _stop(loop, stopped)),
        Server(make_app(hub, access, metrics), host, port) as server,
    ):
        _announce(host, server.bound_port, access.token)
        run_loop(meter, prompts, options.report_s, see)
        hub.end()
        while not stopped.wait(1.0):
            watchdog.alive()


def _stop(loop: CameraLoop, stopped: threading.Event) -> None:
    loop.close()
    stopped.set()


def _announce(host: str, port: int, token: str | None) -> None:
    """The address to open; the token is shown this once."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 # every address: name one that others can open
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    query = f"?token={token}" if token else ""
    Console(stderr=True, soft_wrap=True).print(f"open http://{shown}:{port}/{query}", markup=False)
