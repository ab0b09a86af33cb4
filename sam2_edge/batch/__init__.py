"""Many videos: tasks, the workers that track them, and the engines that run workers."""

from __future__ import annotations

from typing import Literal, get_args

OutputKind = Literal["masks", "jsonl", "coco", "video"]
"""Indexed PNG masks, JSON lines, a COCO file, or an overlay video."""

OUTPUTS: tuple[OutputKind, ...] = get_args(OutputKind)
