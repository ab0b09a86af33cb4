"""SAM 2 without PyTorch: exported graphs, and a runtime that segments images and tracks video."""

import importlib
import os

TYPE_CHECKING = False  # as in typing, whose import would take longer than the rest of this module
if TYPE_CHECKING:
    from typing import Any

    from sam2_edge._api import *  # noqa: F403 # it lists its names

# ONNX Runtime reads this once, when it is imported; an empty value does not count as set. Without
# it, releases from 1.29 on write an identifier to the temporary folder and report to their maker.
os.environ["ORT_DISABLE_TELEMETRY"] = os.environ.get("ORT_DISABLE_TELEMETRY") or "1"


def __getattr__(name: str) -> "Any":
    """Import the public names on first use: the command line must handle signals before that."""
    if name.startswith("__") and name != "__all__":
        raise AttributeError(name)
    from sam2_edge.extras import naming_the_extra

    with naming_the_extra():
        api = importlib.import_module("sam2_edge._api")
    if name == "__all__" or name in api.__all__:
        return getattr(api, name)
    if name in globals():  # a subpackage, which the line above has imported
        return globals()[name]
    raise AttributeError(f"module 'sam2_edge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__getattr__("__all__")]
