"""Triton's server from the wheel nvidia-pytriton, which runs without a GPU; see `make triton`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.markdown import ROOT

WHEEL = ROOT / ".venv/triton/server"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
STUB = WHEEL / f"pytriton/tritonserver/python_backend_stubs/{VERSION}/triton_python_backend_stub"
START_S = 120.0
STOP_S = 20.0


@contextmanager
def triton_server(repository: Path, folder: Path) -> Iterator[str]:
    """Run a server in `folder`; yields the URL of its gRPC port."""
    backends = folder / "backends"
    shutil.copytree(WHEEL / "pytriton/tritonserver/backends", backends)
    shutil.copy(STUB, backends / "python")
    binary = WHEEL / "pytriton/tritonserver/bin/tritonserver"
    for program in (binary, backends / "python" / STUB.name):
        program.chmod(0o755)
    http, grpc = _free_ports(2)
    command = [binary, "--model-repository", repository, "--backend-directory", backends]
    command += ["--http-port", http, "--grpc-port", grpc, "--allow-metrics", "false"]
    command += ["--exit-timeout-secs", "5"]
    command += ["--http-address", "127.0.0.1", "--grpc-address", "127.0.0.1"]
    log = folder / "log.txt"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [str(word) for word in command],
            env=_environment(folder),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_until_ready(server, f"http://127.0.0.1:{http}/v2/health/ready", log)
            yield f"127.0.0.1:{grpc}"
        finally:
            server.terminate()
            try:
                server.wait(STOP_S)
            except subprocess.TimeoutExpired:  # it waits for streams that were cut off
                server.kill()
                server.wait()


def _environment(folder: Path) -> dict[str, str]:
    """A Python with a NumPy of its own before our packages, and what the loader has to find."""
    home = folder / "python"
    venv.create(home, with_pip=False)
    packages = home / f"lib/python{VERSION}/site-packages"
    shutil.copytree(WHEEL / "numpy", packages / "numpy")
    shutil.copytree(WHEEL / "numpy.libs", packages / "numpy.libs")
    paths = [ROOT, *(path for path in sys.path if path.endswith("site-packages"))]
    (packages / "ours.pth").write_text("\n".join(map(str, paths)))
    libraries = [WHEEL / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "OMP_NUM_THREADS": "1",
    }


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not _answers(url):
        if time.monotonic() > deadline or server.poll() is not None:
            raise AssertionError(log.read_text(errors="replace")[-4000:])
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - our own server
    except OSError:
        return False
    return True
