"""Runs code in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "transformers", "onnx", "onnxscript", "huggingface_hub", "safetensors")
"""Packages of the extra `export`, which are not required on a device."""


def run_python(code: str) -> None:
    """Run code in a fresh interpreter; fail if it raises."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run_python_without_heavy(code: str) -> None:
    """Run code in a fresh interpreter that cannot import the heavy packages."""
    run_python(f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}))\n{code}")
