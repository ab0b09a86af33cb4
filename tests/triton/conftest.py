"""A model repository with nano, and its model under a stand-in for Triton."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sam2_edge import VideoTracker
from sam2_edge.bundle import load_bundle
from sam2_edge.triton.repository import write_triton_repository
from tests.helpers.triton import Server

OpenServer = Callable[..., Server]


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "models"
    write_triton_repository(load_bundle("nano"), folder)
    return folder


@pytest.fixture
def open_server(repository: Path, tmp_path: Path) -> Iterator[OpenServer]:
    """Opens a server whose config.pbtxt has other values; see `with_values`."""
    with ExitStack() as stack:
        yield lambda **values: stack.enter_context(_opened(repository, tmp_path, values))


@pytest.fixture(scope="session")
def _server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with _opened(repository, tmp_path_factory.mktemp("served"), {}) as server:
        yield server


@pytest.fixture(scope="session")
def _limited(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = {"max_sequences": 2, "max_objects": 3, "max_pixels": 20_000}
    with _opened(repository, tmp_path_factory.mktemp("limited"), limits) as server:
        yield server


@pytest.fixture
def server(_server: Server) -> Iterator[Server]:
    """A server as written, without sequences."""
    yield _server
    _server.forget()


@pytest.fixture
def limited(_limited: Server) -> Iterator[Server]:
    """A server with low limits, without sequences."""
    yield _limited
    _limited.forget()


@contextmanager
def _opened(repository: Path, folder: Path, values: Mapping[str, object]) -> Iterator[Server]:
    model = folder / "models/sam2_edge"
    shutil.copytree(repository / "sam2_edge", model)
    with_values(model / "config.pbtxt", **values)
    server = Server(model)
    yield server
    server.model.finalize()


def local_tracker(server: Server) -> VideoTracker:
    """A tracker of the same bundle in this process, without the time to open its graphs again."""
    return VideoTracker("nano", backend=server.model._backend)


def with_values(config: Path, **values: object) -> None:
    """Change parameters of config.pbtxt, and `idle_us`, the idle time."""
    text = config.read_text()
    for name, value in values.items():
        if name == "idle_us":
            before = "max_sequence_idle_microseconds: 60000000"
            after = f"max_sequence_idle_microseconds: {value}"
        else:
            (before,) = [line for line in text.splitlines() if f'key: "{name}"' in line]
            after = f'parameters {{ key: "{name}" value: {{ string_value: "{value}" }} }}'
        assert before in text
        text = text.replace(before, after)
    config.write_text(text)
