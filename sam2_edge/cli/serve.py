"""`sam2-edge serve`: camera loops with a web page to view and control them."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import quote

import click
from rich.console import Console

from sam2_edge.cli.loop_options import (
    LoopOptions,
    loop_options,
    make_loop,
    run_loop,
    stopped_by_signals,
)
from sam2_edge.cli.loop_source import is_recorded
from sam2_edge.cli.options import PromptCommand
from sam2_edge.cli.stream_names import stream_names
from sam2_edge.cli.streams import make_hub, run_hub
from sam2_edge.errors import Sam2EdgeError
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.streaming.loop import AtEnd, LoopResult
from sam2_edge.runtime.streaming.stats import LoopStats
from sam2_edge.runtime.streaming.systemd import Watchdog

_EXAMPLE = """\b
Example:
  sam2-edge serve 0 --bundle nano
  sam2-edge serve door=0 yard=rtsp://10.0.0.5/stream --bundle nano
"""


@click.command(cls=PromptCommand, epilog=_EXAMPLE)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; any but a loopback address requires a token.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen on.",
)
@click.option(
    "--token",
    envvar="SAM2_EDGE_TOKEN",
    show_default="generated if required",
    help="Secret that viewers must present, at least 16 characters. Other users can read it in the "
    "process list; set SAM2_EDGE_TOKEN instead.",
)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="URL",
    help="Origin of the page behind a proxy, such as https://robot.example. Repeatable.",
)
@click.option(
    "--max-objects",
    type=click.IntRange(1, 254),
    default=16,
    show_default=True,
    help="Objects up to which viewers add new ones: each takes time on every frame.",
)
@click.option(
    "--loop", is_flag=True, help="Start a file or folder over at its end; objects are kept."
)
@loop_options
def serve(
    sources: tuple[str, ...],
    *,
    host: str,
    port: int,
    token: str | None,
    origins: tuple[str, ...],
    max_objects: int,
    loop: bool,
    options: LoopOptions,
    prompts: Sequence[Prompt],
) -> None:
    """Track objects on cameras, controlled in a browser.

    SOURCE and outputs are as in sam2-edge run. A file waits on its first frame until it is played
    on the page, unless prompts are given; at its end it can be replayed. Ctrl-C stops. Prometheus
    metrics are at /metrics.
    """
    try:
        from sam2_edge.serve.app import make_app
        from sam2_edge.serve.hub import Hub
        from sam2_edge.serve.metrics import LoopMetrics
        from sam2_edge.serve.security import make_access
        from sam2_edge.serve.server import run_server
    except ModuleNotFoundError as error:
        raise Sam2EdgeError(
            f"serve needs its extra ({error}); install it with: pip install 'sam2_edge[serve]'"
        ) from error
    if token is None and "SAM2_EDGE_TOKEN" in os.environ:  # click takes it for unset
        raise Sam2EdgeError(
            "SAM2_EDGE_TOKEN is empty, perhaps because a file that should hold the token is "
            "missing; set a token or unset the variable"
        )
    access = make_access(host, token, origins)
    if access.token != token and _is_in_journal():
        raise Sam2EdgeError(
            f"--host {host} requires a token, and a generated one would be printed to the journal, "
            "which other users may read; set SAM2_EDGE_TOKEN"
        )
    if loop and not any(map(is_recorded, sources)):
        raise Sam2EdgeError(
            f"--loop starts a file over at its end, and {sources[0]} is a camera; leave it out"
        )
    at_end: AtEnd = "loop" if loop else "wait"
    named = stream_names(sources)
    if named is None:
        only = make_loop(sources[0], options, prompts, Watchdog(), max_objects, at_end=at_end)
        loops, stop = [only], only.close
    else:
        cameras = make_hub(named, options, prompts, max_objects, at_end=at_end)
        loops, stop = [cameras[name] for name in named], cameras.close
    for camera_loop, source in zip(loops, named.values() if named else sources, strict=True):
        if is_recorded(source) and not prompts and options.prompts_file is None:
            camera_loop.pause()  # nothing would be tracked before its viewers prompt
    stats = [LoopStats(camera_loop) for camera_loop in loops]
    hubs = [Hub(each.loop, each, streams=tuple(named or ())) for each in stats]
    by_name, metrics = {hub.name: hub for hub in hubs}, LoopMetrics(*stats)

    def show(tracked: LoopResult) -> None:
        metrics.observe(tracked)
        by_name[tracked.frame.stream].publish(tracked)

    with (
        stopped_by_signals(stop),
        run_server(make_app(hubs, access, metrics), host, port) as bound_port,
    ):
        _announce(host, bound_port, access.token, is_generated=access.token != token)
        if named is None:
            run_loop(stats[0], options.report_s, show)
        else:
            run_hub(cameras, dict(zip(named, stats, strict=True)), options.report_s, show)


def _announce(host: str, port: int, token: str | None, *, is_generated: bool) -> None:
    """Print the URL to open. A token is printed only if there is no other way to learn it."""
    query = f"?token={quote(token, safe='')}" if is_generated and token is not None else ""
    addresses = [
        f"http://{f'[{name}]' if ':' in name else name}:{port}/{query}" for name in _names(host)
    ]
    text = "\n  or ".join(addresses)
    if token is not None and not is_generated:
        text += " and add ?token= and your token, percent-encoded"
    Console(stderr=True, soft_wrap=True).print(f"open {text}", markup=False)


def _names(host: str) -> list[str]:
    """Return under what names this machine is reached that listens on `host`."""
    if host not in ("", "0.0.0.0", "::"):  # noqa: S104 # all addresses
        return [host]
    family, elsewhere = socket.AF_INET, "192.0.2.1"  # for documentation (RFC 5737)
    if host == "::":
        family, elsewhere = socket.AF_INET6, "2001:db8::1"  # the same (RFC 3849)
    own = []
    with socket.socket(family, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect((elsewhere, 9))  # chooses an interface, and sends nothing
        own.append(probe.getsockname()[0])
    name = socket.gethostname()
    with suppress(OSError):
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(name, None)}
        if not all(ip_address(address.partition("%")[0]).is_loopback for address in found):
            own.append(name)
    return own or [name]


def _is_in_journal() -> bool:
    """Return whether standard error goes to systemd's journal (systemd.exec(5))."""
    stream = os.environ.get("JOURNAL_STREAM")
    if stream is None:
        return False
    status = os.fstat(sys.stderr.fileno())
    return stream == f"{status.st_dev}:{status.st_ino}"
