"""A fresh interpreter without the heavy packages."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "transformers", "onnx", "onnxscript", "huggingface_hub", "safetensors")


def python(code: str) -> None:
    """Run code in a fresh interpreter in which the heavy packages cannot be imported."""
    block = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}))\n"
    done = subprocess.run(
        [sys.executable, "-c", block + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
