"""The camera loop while its server is watched and attacked.

    python benchmarks/serve_load.py [--seconds 10] [--phases viewers-20 idle ...] [--json FILE]

nano tracks one object of the synthetic camera, and clients (`serve_clients.py`) run in a process of
lower priority, since those on other machines take none of the loop's time either. Every phase lies
between two without clients; its frame rate is given as a share of their mean, and "server_cpu" is
the share of one core that the server took. Exit code 1 if a phase costs more than it may, an
answer is not as documented, `/healthz` does not answer, or descriptors, threads or viewers are left
behind.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serve_clients import PHASES, TOKEN

from sam2_edge import CameraLoop, VideoTracker
from sam2_edge.runtime.prompts import Prompt
from sam2_edge.runtime.streaming.stats import LoopStats, resident_bytes
from sam2_edge.serve.app import make_app
from sam2_edge.serve.hub import Hub
from sam2_edge.serve.metrics import LoopMetrics
from sam2_edge.serve.security import Access
from sam2_edge.serve.server import run_server
from sam2_edge.synthetic import center_click
from sam2_edge.synthetic.camera import SyntheticCamera

CLIENTS = Path(__file__).parent / "serve_clients.py"

COMMON_LIMIT = 1024
"""Descriptors that a process may open by default on most systems."""

MIN_SHARE = {"viewers-1": 0.9, "viewers-20": 0.9}
MIN_SHARE_ATTACKED = 0.5
"""The share of the frame rate that must remain in these phases, and in the others."""

ALLOWED = {
    *("101", "frames", "alives", "dones", "errors", "controls", "opened", "dropped", "close 1013"),
    *("close 1002", "close 1003", "close 1007", "close 1008", "close 1009", "closed"),
    *("healthy", "health_max_ms", "ConnectionResetError", "IncompleteReadError"),
}
"""Outcomes that may occur in any phase; the others only where they must."""


def usage() -> dict[str, float]:
    """Return what this process has open, and its resident memory."""
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "resident_mb": round(resident_bytes() / 2**20, 1),
    }


class Server:
    """The loop on its camera, and the server beside it."""

    def __init__(self, size: int) -> None:
        camera = SyntheticCamera(16, size=size, objects=1, paced=True)
        click = Prompt(1, points=[center_click(camera.clip.mask(0, 1))])
        tracker = VideoTracker("nano", remember_absent=False)
        self.loop = CameraLoop(lambda: camera, tracker, prompts=[click])
        self.stats = LoopStats(self.loop)
        self.hub, self.metrics = Hub(self.loop, self.stats), LoopMetrics(self.stats)
        self.app = make_app([self.hub], Access(TOKEN), self.metrics)
        self.port = 0

    def track(self) -> None:
        """Run the loop to its end."""
        for tracked in self.loop:
            self.stats.observe(tracked)
            self.metrics.observe(tracked)
            self.hub.publish(tracked)

    def rate(self, seconds: float) -> float:
        """Return the loop's frames per second over a time, and up to the next frame; 0 if none."""
        began_s, before = time.monotonic(), self.loop.tracked
        time.sleep(seconds)
        wait(lambda: self.loop.tracked > before)
        return (self.loop.tracked - before) / (time.monotonic() - began_s)

    def cpu_s(self) -> float:
        """Return the processor time of the server's thread and of those that encode for it."""
        ticks = 0
        for thread in threading.enumerate():
            if thread.name.startswith(("sam2_edge server", "asyncio_")):
                stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text(encoding="ascii")
                ticks += sum(map(int, stat.rpartition(")")[2].split()[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def phase(self, name: str, seconds: float) -> dict[str, Any]:
        """Run one phase and return its figures."""
        command = [sys.executable, CLIENTS, name, "--port", str(self.port)]
        attacker = subprocess.Popen(
            [*command, "--seconds", str(seconds + 2)], stdout=subprocess.PIPE, text=True
        )
        time.sleep(2)  # for its start
        before_s = self.cpu_s()
        rate = self.rate(seconds)
        cpu = (self.cpu_s() - before_s) / seconds
        at_most = usage()
        counts = json.loads(attacker.communicate(timeout=seconds + 60)[0])
        return {"fps": round(rate, 2), "server_cpu": round(cpu, 3), "during": at_most, **counts}


def measure(names: list[str], seconds: float, size: int) -> dict[str, Any]:
    """Run phases, each between two without clients, and return their figures."""
    server = Server(size)
    tracking = threading.Thread(target=server.track)
    with run_server(server.app, "127.0.0.1", 0) as server.port:
        tracking.start()
        while server.loop.tracked < 10:
            time.sleep(0.1)
        server.phase("viewers-1", 1)  # starts every thread
        before, quiet, phases = usage(), [server.rate(seconds)], {}
        for name in names:
            phases[name] = server.phase(name, seconds)
            wait(
                lambda: server.hub.viewers == 0 and usage()["descriptors"] <= before["descriptors"]
            )
            quiet.append(server.rate(seconds))
            around = max((quiet[-1] + quiet[-2]) / 2, 1e-9)
            phases[name]["share"] = round(phases[name]["fps"] / around, 3)
        after = usage()
        server.loop.close()
        tracking.join()
    return {
        "load": round(os.getloadavg()[0], 2),
        "cores": os.cpu_count(),
        "fps_without_clients": [round(rate, 2) for rate in quiet],
        "phases": phases,
        "before": before,
        "after": after,
        "viewers_left": server.hub.viewers,
    }


def wait(condition: Callable[[], bool], seconds: float = 40) -> None:
    """Wait until a condition holds, or for a time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)


def problems(found: dict[str, Any]) -> list[str]:
    """Return what is not as documented; rates are not judged here."""
    wrong = []
    for name, figures in found["phases"].items():
        counts = {k for k in figures if k not in ("fps", "server_cpu", "during", "share")}
        expected = PHASES[name][2]
        wrong += [f"{name}: no {outcome}" for outcome in sorted(expected - counts)]
        wrong += [f"{name}: {outcome}" for outcome in sorted(counts - expected - ALLOWED)]
    for kind in ("descriptors", "threads"):
        if found["after"][kind] > found["before"][kind]:
            wrong.append(f"{kind} left behind: {found['before'][kind]} to {found['after'][kind]}")
    if found["viewers_left"]:
        wrong.append(f"{found['viewers_left']} viewers left behind")
    return wrong


def slow(found: dict[str, Any]) -> list[str]:
    """Return the phases that cost the loop more than they may."""
    return [
        f"{name}: {figures['share']} of the frame rate"
        for name, figures in found["phases"].items()
        if figures["share"] < MIN_SHARE.get(name, MIN_SHARE_ATTACKED)
    ]


def main() -> None:
    """Print the figures; exit code 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="of each phase")
    parser.add_argument("--size", type=int, default=256, help="of the camera, pixels")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (COMMON_LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    found = measure(arguments.phases, arguments.seconds, arguments.size)
    found |= {"problems": problems(found), "slow": slow(found)}
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    if wrong := found["problems"] + found["slow"]:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
