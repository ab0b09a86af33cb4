"""The target of the command line: every option is parsed, and commands run up to their checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sam2_edge.cli.main import cli
from tests.fuzz import seeds
from tests.fuzz.target import Target

RUN = ("track", "segment", "run", "serve", "inspect")
"""Commands that run until they find that there is no bundle."""

REPLACED = {
    "bundle": Path("no-bundle"),
    **dict.fromkeys(("video", "masks", "jsonl", "json_file", "overlay", "udp")),
}
"""Values of options that are parsed, but not passed on: outputs would be written anywhere."""


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
    if not (folder / "frames").exists():
        _write_files(folder)
    context = command.make_context(name, rest)
    with context:
        if name in RUN:
            for key in REPLACED.keys() & context.params.keys():
                context.params[key] = REPLACED[key]
            command.invoke(context)


TARGET = Target(arguments, seeds.arguments, is_json=True)


def _argument(value: Any) -> str:
    """What a process can get: no zeros, and surrogates only for bytes that are not UTF-8."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _write_files(folder: Path) -> None:
    (folder / "frames").mkdir()
    for name in ("frames/0.png", "mask.png"):
        (folder / name).write_bytes(seeds.index_masks()[1])
    (folder / "prompts.json").write_bytes(seeds.prompts_files()[0])
