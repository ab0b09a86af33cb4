"""The outputs of `run` and `serve`: single files, or folders of files that rotate."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Collection
from pathlib import Path

import click
from click.core import ParameterSource

from sam2_edge.errors import SinkError
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sinks.codecs import CONTAINERS, find_codec
from sam2_edge.runtime.sinks.files import STANDARD_OUTPUT, check_new_folder
from sam2_edge.runtime.sinks.jsonl import JsonLines
from sam2_edge.runtime.sinks.masks import MaskFolder
from sam2_edge.runtime.sinks.rotation import RotatingSink, RotationPolicy, SizedSink

VIDEO_SUFFIX = ".mp4"
"""Of overlays; written in fragments, so that a power failure does not make them unreadable."""

JSONL = (".jsonl", ".ndjson")
"""Suffixes of files of JSON lines."""


def video_sink(
    path: Path,
    open_video: Callable[[Path], SizedSink],
    policy: RotationPolicy,
    *,
    codec: str | None,
) -> Sink:
    """Open the sink of --video: a video file by its suffix, otherwise a folder of them."""
    if is_file_name(path, CONTAINERS):
        return open_video(path)
    find_codec(path / f"overlay{VIDEO_SUFFIX}", codec)
    return _rotating(path, "overlay", VIDEO_SUFFIX, open_video, policy)


def jsonl_sink(path: Path, policy: RotationPolicy, *, overwrite: bool) -> Sink:
    """Open the sink of --jsonl: a file by its suffix, otherwise a folder of them."""
    if is_file_name(path, JSONL):
        return JsonLines(path, overwrite=overwrite)
    return _rotating(path, "results", ".jsonl", JsonLines, policy)


def mask_sink(path: Path, policy: RotationPolicy) -> Sink:
    """Open the sink of --masks, a folder of folders."""
    return _rotating(path, "masks", "", MaskFolder, policy)


def is_file_name(path: Path, suffixes: Collection[str]) -> bool:
    """Whether an output is a single file: by its suffix, unless it is a folder or standard output.

    Raises:
        SinkError: If it has the suffix of another kind of file.
    """
    if path.is_dir():
        return False
    if path.suffix.lower() in suffixes or path == STANDARD_OUTPUT:
        return True
    if mimetypes.guess_type(path.name)[0] is not None:
        raise SinkError(
            f"{path}: unknown suffix {path.suffix}; give a file that ends with "
            f"{' or '.join(suffixes)}, or a folder"
        )
    return False


def of_stream(path: Path | None, stream: str, suffixes: Collection[str]) -> Path | None:
    """Return where the output of one of several streams goes.

    That is a folder in a folder, or beside a file another one: out.mp4 becomes out-NAME.mp4. All
    share standard output, where each line names its stream.
    """
    if path is None or path == STANDARD_OUTPUT:
        return path
    if is_file_name(path, suffixes):
        return path.with_name(f"{path.stem}-{stream}{path.suffix}")
    return path / stream


def check_rotation(ctx: click.Context, video: Path | None, jsonl: Path | None) -> None:
    """Raise UsageError for options of rotation if no output rotates."""
    given = [
        option.opts[0]
        for option in ctx.command.params
        if option.name in ("rotate_mb", "rotate_minutes", "keep_gb")
        and ctx.get_parameter_source(option.name) is not ParameterSource.DEFAULT
    ]
    single = [
        path
        for path, suffixes in ((video, CONTAINERS), (jsonl, JSONL))
        if path is not None and is_file_name(path, suffixes)
    ]
    if (
        given
        and single
        and ctx.params["masks"] is None
        and len(single) == sum(path is not None for path in (video, jsonl))
    ):
        raise click.UsageError(
            f"{given[0]} is for a series of files, but {single[0]} is one; give a folder"
        )


def _rotating(
    folder: Path,
    kind: str,
    suffix: str,
    open_sink: Callable[[Path], SizedSink],
    policy: RotationPolicy,
) -> Sink:
    check_new_folder(folder, overwrite=True)  # earlier outputs stay in it
    return RotatingSink(folder, kind, suffix, open_sink, policy)
