"""Servers with and without a token."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sam2_edge.serve.security import Access
from tests.helpers.site import TOKEN, Site


@pytest.fixture(scope="package")
def open_site() -> Iterator[Site]:
    """A server on a loopback address, which needs no token."""
    with Site(Access(None)) as site:
        yield site


@pytest.fixture(scope="package")
def guarded_site() -> Iterator[Site]:
    """A server with a token, and a TLS proxy at robot.example."""
    with Site(Access(TOKEN, ("https://robot.example",))) as site:
        yield site
