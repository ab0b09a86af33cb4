"""Runs code as if the disk were full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

PRELUDE = """
import resource, signal
import numpy as np
from pathlib import Path
from sam2_edge import SinkError
from sam2_edge.runtime.sinks.files import write_image, write_text
from sam2_edge.runtime.sinks.jsonl import JsonLines
from tests.helpers.results import tracked_frame
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
"""


def run_on_full_disk(code: str, folder: Path) -> str:
    """Run code whose files may have 10,000 bytes, and return its output.

    The code finds the folder as `folder`.
    """
    script = f"{PRELUDE}folder = Path({str(folder)!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout
