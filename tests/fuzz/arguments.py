"""The target of the command line: every option is parsed, and commands run up to their checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sam2_edge.cli.main import cli
from tests.fuzz import seeds
from tests.fuzz.target import Target

UP_TO_THE_BUNDLE = ("track", "segment", "run", "serve", "inspect")
"""Commands that run until they find that there is no bundle."""

OUTPUTS = ("video", "masks", "jsonl", "json_file", "overlay", "udp")
"""Options that are parsed, but not passed on: they write or send wherever they say."""


def arguments(data: bytes, folder: Path) -> None:
    """Arguments of a command, as a JSON list."""
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not (isinstance(given, list) and given and str(given[0]) in cli.commands):
        return
    name, *rest = (_argument(value) for value in given)
    command = cli.commands[name]
    frames = folder / "frames"
    if not frames.exists():
        _write_frames(frames)
    context = command.make_context(name, rest)
    with context:
        if name in UP_TO_THE_BUNDLE:
            context.params["bundle"] = folder / "no-bundle"
            context.params |= {key: None for key in OUTPUTS if key in context.params}
            for key in ("source", "image"):
                if key in context.params:
                    context.params[key] = _below(context.params[key], folder)
            command.invoke(context)


TARGET = Target(arguments, seeds.arguments, is_json=True)


def _argument(value: Any) -> str:
    """What a process can get: no zeros, and surrogates only for bytes that are not UTF-8."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _below(source: Any, folder: Path) -> Any:
    return type(source)(folder / "frames") if str(source) == "frames" else source


def _write_frames(frames: Path) -> None:
    frames.mkdir()
    (frames / "0.png").write_bytes(seeds.index_masks()[0])
