"""The small bundle as an argument of a command."""

from __future__ import annotations

import pytest

from sam2_edge import Bundle


@pytest.fixture
def bundle(small_bundle: Bundle) -> str:
    return str(small_bundle.path)
