"""timm, which `make install` puts into a folder beside original EdgeTAM, without torchvision."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.compat.original.torchvision_shim import substitute_if_missing


def import_timm() -> ModuleType:
    """Import timm and nothing else from its folder, or skip the test if it is not there."""
    folder = Path(sys.prefix) / "edgetam"
    if not (folder / "timm").is_dir():
        pytest.skip("timm 1.0.31 is not installed")
    sys.path.insert(0, str(folder))
    try:
        with substitute_if_missing():
            return importlib.import_module("timm")
    finally:
        sys.path.remove(str(folder))
