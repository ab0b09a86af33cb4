"""Options that several commands share, and how their values reach a command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import Any, cast, get_args

import click

from sam2_edge.bundle import Bundle
from sam2_edge.runtime.backends import BackendName
from sam2_edge.runtime.memory.policies import MemoryPolicyName
from sam2_edge.runtime.prompts import Prompt, read_mask
from sam2_edge.runtime.sources import FrameRange
from sam2_edge.runtime.sources.prompt_file import PromptsByFrame, load_prompts
from sam2_edge.runtime.tracker import VideoTracker

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

DEFAULT_OBJECT = 1
PATH = click.Path(path_type=Path)

_PROMPT_OPTIONS = ("object", "point", "box", "mask")
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
        group: A dataclass whose fields are named like the options.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def command(*args: Any, **given: Any) -> Any:
            values = {field.name: given.pop(field.name) for field in fields(group)}
            return function(*args, **{argument: group(**values)}, **given)

        return stack(*options)(command)

    return decorate


bundle_option = click.option("--bundle", type=PATH, required=True, help="Exported bundle.")

json_option = click.option("--json", "json_file", type=PATH, help="Write results here (.json).")

overwrite_option = click.option("--overwrite", is_flag=True, help="Replace existing outputs.")

memory_policy_option = click.option(
    "--memory-policy",
    type=click.Choice(get_args(MemoryPolicyName)),
    default="original",
    show_default=True,
    help="How masks and remembered frames are chosen: original as published; motion and "
    "distractor are experimental.",
)

backend_options = stack(
    click.option(
        "--backend",
        type=click.Choice(get_args(BackendName)),
        default="auto",
        show_default=True,
        help="What runs the graphs; sam2-edge doctor lists what this machine has.",
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
        self, bundle: Path | Bundle, *, clip_frames: int | None = None, remember_absent: bool = True
    ) -> VideoTracker:
        """Open a tracker as these options describe it; see `VideoTracker` for the arguments."""
        return VideoTracker(
            bundle,
            backend=self.backend,
            threads=self.threads,
            recent_memories=self.recent_memories,
            memory_policy=self.memory_policy,
            clip_frames=clip_frames,
            remember_absent=remember_absent,
        )


tracking_options = grouped(
    "tracking",
    TrackingOptions,
    click.option(
        "--recent-memories",
        type=click.IntRange(min=1),
        show_default="6",
        help="Recent frames whose memory is used; fewer are faster but not exact.",
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
    """A command whose prompt options belong to the `--object` typed before them.

    Click hands over the values of each option but not the order between options; the order is kept
    in `ctx.meta`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Record the order of the prompt options, then parse as usual."""
        if not ctx.resilient_parsing:
            values, _, order = self.make_parser(ctx).parse_args(args=list(args))
            queues = {name: list(values.get(name) or ()) for name in _PROMPT_OPTIONS}
            names = [p.name for p in order if p.name in queues]
            ctx.meta[_TYPED_PROMPTS] = [(n, queues[n].pop(0)) for n in names if n and queues[n]]
        return super().parse_args(ctx, args)


def prompt_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --point, --box, --mask and --object to a command of class `PromptCommand`.

    The command gets them as `prompts`, a list of `Prompt`.
    """

    @wraps(function)
    def command(*args: Any, **given: Any) -> Any:
        for name in _PROMPT_OPTIONS:
            del given[name]
        typed = click.get_current_context().meta[_TYPED_PROMPTS]
        return function(*args, prompts=_prompts(typed), **given)

    return stack(
        click.option(
            "--point",
            multiple=True,
            metavar="X,Y[,LABEL]",
            help="Click in pixels; label 1 (default) is foreground, 0 background. Repeatable.",
        ),
        click.option("--box", multiple=True, metavar="X1,Y1,X2,Y2", help="Box in pixels."),
        click.option(
            "--mask", multiple=True, metavar="FILE", help="Mask image; nonzero is foreground."
        ),
        click.option(
            "--object",
            multiple=True,
            metavar="ID",
            show_default=str(DEFAULT_OBJECT),
            help="Object that the prompts after this are for. Repeatable.",
        ),
    )(command)


def choose_prompts(
    path: Path | None, typed: Sequence[Prompt], start: int, default: Sequence[Prompt] = ()
) -> PromptsByFrame:
    """Return the prompts of a file, or the typed ones, or the default ones.

    Args:
        path: Prompts file, if one is given.
        typed: Prompts given as options, for frame `start`.
        start: First frame.
        default: Prompts for frame `start` if there are no others.

    Raises:
        click.UsageError: If there are both a file and typed prompts.
        PromptError: If the file is unreadable or malformed.
    """
    if path is None:
        return {start: typed or default}
    if typed:
        raise click.UsageError("give prompts as options or with --prompts, not both")
    return load_prompts(path)


def frame_range(
    _ctx: click.Context, _parameter: click.Parameter, text: str | None
) -> FrameRange | None:
    """Read the option value "A:B" as a range of frames; either number may be left out."""
    if text is None:
        return None
    first, colon, last = text.partition(":")
    try:
        chosen = FrameRange(int(first or 0), int(last) if last else None)
    except ValueError:
        chosen = FrameRange(-1)
    if not colon or chosen.start < 0 or (chosen.stop is not None and chosen.stop <= chosen.start):
        raise click.BadParameter(f"{text!r} is not A:B with 0 <= A < B, such as 0:100")
    return chosen


def _prompts(typed: list[tuple[str, str]]) -> list[Prompt]:
    """One prompt per object, in order. A single --object at the end names the prompts before it."""
    if [name for name, _ in typed].count("object") == 1 and typed[-1][0] == "object":
        typed = [typed[-1], *typed[:-1]]
    prompts: dict[int, Prompt] = {}
    object_id, named = DEFAULT_OBJECT, []
    for name, value in typed:
        if name == "object":
            object_id = _object_id(value)
            named.append(object_id)
        else:
            prompt = prompts.get(object_id, Prompt(object_id))
            prompts[object_id] = _with(prompt, name, value)
    for object_id in named:
        if object_id not in prompts:
            raise click.BadParameter(f"object {object_id} has no prompt", param_hint="--object")
    return list(prompts.values())


def _with(prompt: Prompt, name: str, value: str) -> Prompt:
    if name in ("mask", "box") and getattr(prompt, name) is not None:
        raise click.BadParameter(
            f"object {prompt.object_id} has more than one {name}", param_hint=f"--{name}"
        )
    if name == "mask":
        return replace(prompt, mask=read_mask(value))
    if name == "box":
        return replace(prompt, box=_numbers(value, (4,), "--box", "X1,Y1,X2,Y2"))
    x, y, label = (*_numbers(value, (2, 3), "--point", "X,Y or X,Y,LABEL"), 1.0)[:3]
    points, labels = cast("list[Any]", prompt.points), cast("list[Any]", prompt.labels)
    return replace(prompt, points=[*(points or ()), (x, y)], labels=[*(labels or ()), label])


def _numbers(text: str, counts: tuple[int, ...], option: str, form: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts:
        raise click.BadParameter(f"{text!r} is not {form} in numbers", param_hint=option)
    return values


def _object_id(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is not a whole number", param_hint="--object"
        ) from error
