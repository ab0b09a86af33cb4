"""Options shared by several commands, and the decorators that pass their values on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.shell_completion import CompletionItem

from sam2_edge.errors import PromptError
from sam2_edge.runtime.choices import BackendName, MemoryPolicyName

if TYPE_CHECKING:
    from sam2_edge.bundle import Bundle
    from sam2_edge.runtime.prompts import Prompt
    from sam2_edge.runtime.sources import FrameRange
    from sam2_edge.runtime.sources.prompt_file import PromptsByFrame
    from sam2_edge.runtime.tracker import VideoTracker

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

DEFAULT_OBJECT = 1
PATH = click.Path(path_type=Path)

MAX_RATE = 1000
"""Largest frame rate of a video."""


BUNDLED = ("nano", "edgetam-nano")
"""As in `bundle.names`, and below as in `bundle.manifest`, whose imports completion avoids."""

MANIFEST = "manifest.json"


def _entries(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."]
    except OSError:
        return []


class _BundlePath(click.Path):
    def convert(self, value: Any, _param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if ctx is not None and ctx.resilient_parsing:  # shell completion has to be quick
            return value
        from sam2_edge.bundle.names import path_from_user

        return path_from_user(os.fspath(value))

    def shell_complete(
        self, _ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the bundles in the package and in the folder being typed, and its folders."""
        folder, _, start = incomplete.rpartition(os.sep)
        parent = Path(f"{folder}{os.sep}") if os.sep in incomplete else Path()
        folders = sorted(entry for entry in _entries(parent) if entry.name.startswith(start))
        bundles = [str(f) for f in folders if (f / MANIFEST).is_file()]
        others = [f"{f}{os.sep}" for f in folders if str(f) not in bundles]
        bundled = [name for name in BUNDLED if name.startswith(incomplete)]
        return [CompletionItem(name) for name in (*bundled, *bundles, *others)]


BUNDLE_PATH = _BundlePath()
"""A folder, or the name of a bundle in the package; ./NAME is the folder."""

_PROMPT_OPTIONS = ("object", "point", "box", "mask", "name")
_TYPED_PROMPTS = "sam2_edge.typed_prompts"


def stack(*options: Decorator) -> Decorator:
    """Combine options into one decorator; the help lists them in this order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def grouped(argument: str, group: type[Any], *options: Decorator) -> Decorator:
    """Combine options into one decorator that passes their values as one argument.

    Args:
        argument: Name of the command's keyword argument.
        group: Dataclass with a field per option.
        options: Decorators that add the options.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def command(*args: Any, **kwargs: Any) -> Any:
            values = {field.name: kwargs.pop(field.name) for field in fields(group)}
            return function(*args, **{argument: group(**values)}, **kwargs)

        return stack(*options)(command)

    return decorate


bundle_option = click.option(
    "--bundle",
    type=BUNDLE_PATH,
    required=True,
    help="Exported bundle, or nano or edgetam-nano for one in the package.",
)

json_option = click.option(
    "--json",
    "json_file",
    type=PATH,
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="Write results here (.json); without FILE, or with -, to standard output.",
)


def _rate(text: str) -> Fraction:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not Fraction(1, 1000) <= rate <= MAX_RATE:
        raise click.BadParameter(
            f"{text!r} is not a frame rate; give a number up to {MAX_RATE}, such as 25, 29.97 or "
            "30000/1001"
        )
    return rate


codec_option = click.option(
    "--codec",
    metavar="NAME",
    help="Codec of the overlay: h264, hevc, vp9, mpeg4 or mjpeg. [default: h264; mjpeg in .avi]",
)


def fps_option(default: str) -> Decorator:
    """Return --fps, whose help says what the default is."""
    return click.option(
        "--fps",
        type=_rate,
        metavar="RATE",
        help=f"Frames per second of the overlay. [default: {default}]",
    )


overwrite_option = click.option("--overwrite", is_flag=True, help="Replace existing outputs.")

memory_policy_option = click.option(
    "--memory-policy",
    type=click.Choice(get_args(MemoryPolicyName)),
    default="original",
    show_default=True,
    help="How masks and remembered frames are chosen: as published (original), or experimentally "
    "(motion, distractor).",
)

backend_options = stack(
    click.option(
        "--backend",
        type=click.Choice(get_args(BackendName)),
        default="auto",
        show_default=True,
        help="Backend that runs the graphs; see sam2-edge doctor.",
    ),
    click.option(
        "--threads", type=click.IntRange(min=1), show_default="all cores", help="CPU threads."
    ),
)


@dataclass(frozen=True, slots=True)
class TrackingOptions:
    """Values of `tracking_options`."""

    recent_memories: int | None
    memory_policy: MemoryPolicyName
    backend: BackendName
    threads: int | None

    def open_tracker(
        self,
        bundle: Path | Bundle,
        *,
        clip_frames: int | None = None,
        remember_absent: bool = True,
        logits: bool = False,
    ) -> VideoTracker:
        """Open a tracker with these options; see `VideoTracker` for the arguments."""
        from sam2_edge.runtime.tracker import VideoTracker

        return VideoTracker(
            bundle,
            backend=self.backend,
            threads=self.threads,
            recent_memories=self.recent_memories,
            memory_policy=self.memory_policy,
            clip_frames=clip_frames,
            remember_absent=remember_absent,
            logits=logits,
        )


tracking_options = grouped(
    "tracking",
    TrackingOptions,
    click.option(
        "--recent-memories",
        type=click.IntRange(min=1),
        show_default="6",
        help="Number of recent frames whose memory is used; fewer are faster but not exact.",
    ),
    memory_policy_option,
    backend_options,
)

prompts_file_option = click.option(
    "--prompts",
    "prompts_file",
    type=PATH,
    help="JSON list of prompts with frame numbers, instead of the options above.",
)


class PromptCommand(click.Command):
    """A command whose prompt options apply to the `--object` before them.

    Click does not pass the order of options to the command, so it is kept in `ctx.meta`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments and record the order of the prompt options."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:  # shell completion: values may be incomplete
            values = {name: iter(ctx.params[name]) for name in _PROMPT_OPTIONS}
            names = [option.name for option in order if option.name in values]
            ctx.meta[_TYPED_PROMPTS] = [(name, next(values[name])) for name in names if name]
        return rest


def _numbers(form: str, *counts: int) -> Callable[[str], list[float]]:
    """Make an option type for comma-separated numbers; `counts` are the allowed lengths."""

    def convert(text: str) -> list[float]:
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in counts:
            raise click.BadParameter(f"{text!r} is not {form} in numbers")
        return numbers

    return convert


def _name(text: str) -> str:
    try:
        from sam2_edge.runtime.prompts import checked_name

        return checked_name(text)
    except PromptError as error:
        raise click.BadParameter(str(error)) from error


def prompt_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --point, --box, --mask, --name and --object to a `PromptCommand`.

    The command receives them as `prompts`, a list of `Prompt`.
    """

    @wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        for name in _PROMPT_OPTIONS:
            del kwargs[name]
        typed = click.get_current_context().meta[_TYPED_PROMPTS]
        return function(*args, prompts=_prompts(typed), **kwargs)

    return stack(
        click.option(
            "--point",
            type=_numbers("X,Y or X,Y,LABEL", 2, 3),
            multiple=True,
            metavar="X,Y[,LABEL]",
            help="Click in pixels; label 1 (default) is foreground, 0 background. Repeatable.",
        ),
        click.option(
            "--box",
            type=_numbers("X1,Y1,X2,Y2", 4),
            multiple=True,
            metavar="X1,Y1,X2,Y2",
            help="Box in pixels.",
        ),
        click.option(
            "--mask", multiple=True, metavar="FILE", help="Mask of the object, an image file."
        ),
        click.option(
            "--name",
            type=_name,
            multiple=True,
            metavar="TEXT",
            help="Name of the object in results and overlays.",
        ),
        click.option(
            "--object",
            type=int,
            multiple=True,
            metavar="ID",
            show_default=str(DEFAULT_OBJECT),
            help="Object that the following prompts belong to. Repeatable.",
        ),
    )(command)


def choose_prompts(
    path: Path | None, typed: Sequence[Prompt], start: int, default: Sequence[Prompt] = ()
) -> PromptsByFrame:
    """Return the prompts of a file, or else those typed, or else the default ones, by frame.

    Args:
        path: Prompts file, if any.
        typed: Prompts typed as options, for frame `start`.
        start: Number of the first frame.
        default: Prompts for frame `start` if there are no others.

    Raises:
        click.UsageError: If there are both a file and typed prompts.
        PromptError: If the file is unreadable or malformed.
    """
    if path is None:
        return {start: typed or default}
    if typed:
        raise click.UsageError("give prompts as options or with --prompts, not both")
    from sam2_edge.runtime.sources.prompt_file import load_prompts

    return load_prompts(path)


def frame_range(text: str) -> FrameRange:
    """Parse "A:B", frames A to B, excluding B; either may be omitted."""
    from sam2_edge.runtime.sources import FrameRange

    first, colon, last = text.partition(":")
    try:
        chosen = FrameRange(int(first or 0), int(last) if last else None)
    except ValueError:
        chosen = FrameRange(-1)
    if not colon or chosen.start < 0 or (chosen.stop is not None and chosen.stop <= chosen.start):
        raise click.BadParameter(f"{text!r} is not A:B with 0 <= A < B, such as 0:100")
    return chosen


def _prompts(typed: list[tuple[str, Any]]) -> list[Prompt]:
    """Return one prompt per object; a single --object at the end applies to those before it."""
    if [name for name, _ in typed].count("object") == 1 and typed[-1][0] == "object":
        typed = [typed[-1], *typed[:-1]]
    by_object: dict[int, list[tuple[str, Any]]] = {}
    object_id = DEFAULT_OBJECT
    for name, value in typed:
        if name == "object":
            object_id = value
            by_object.setdefault(object_id, [])
        else:
            by_object.setdefault(object_id, []).append((name, value))
    return [_prompt(object_id, options) for object_id, options in by_object.items()]


def _prompt(object_id: int, options: list[tuple[str, Any]]) -> Prompt:
    points, boxes, masks, names = (
        [value for name, value in options if name == kind]
        for kind in ("point", "box", "mask", "name")
    )
    if not (points or boxes or masks):
        raise click.BadParameter(f"object {object_id} has no prompt", param_hint="--object")
    for name, values in (("box", boxes), ("mask", masks), ("name", names)):
        if len(values) > 1:
            raise click.BadParameter(
                f"object {object_id} has more than one {name}", param_hint=f"--{name}"
            )
    from sam2_edge.runtime.prompts import Prompt, check_prompt
    from sam2_edge.runtime.sources.mask_file import MaskFile

    prompt = Prompt(
        object_id,
        points=[point[:2] for point in points] or None,
        labels=[point[2] if len(point) == 3 else 1 for point in points] or None,
        box=boxes[0] if boxes else None,
        mask=MaskFile(masks[0], object_id) if masks else None,
        name=names[0] if names else None,
    )
    check_prompt(prompt)
    return prompt
