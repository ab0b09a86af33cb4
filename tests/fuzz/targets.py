"""All targets by name."""

from __future__ import annotations

from tests.fuzz import arguments
from tests.fuzz.files import FILES
from tests.fuzz.web import WEB

TARGETS = {**FILES, **WEB, "arguments": arguments.TARGET}
