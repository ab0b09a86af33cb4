"""Options that several commands share: prompts in the order in which they are typed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import click

from sam2_edge.runtime.backends import BackendName
from sam2_edge.runtime.memory.policies import MemoryPolicyName
from sam2_edge.runtime.prompts import Prompt, read_mask
from sam2_edge.runtime.sources.prompt_file import PromptsByFrame, load_prompts

DEFAULT_OBJECT = 1

_PROMPT_OPTIONS = ("object", "point", "box", "mask")
_Function = TypeVar("_Function", bound=Callable[..., Any])

backend_option = click.option(
    "--backend",
    type=click.Choice(get_args(BackendName)),
    default="auto",
    show_default=True,
    help="What runs the graphs; sam2-edge doctor shows what this machine has.",
)


threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads (default: all cores)."
)

overwrite_option = click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")

recent_memories_option = click.option(
    "--recent-memories",
    type=click.IntRange(min=1),
    help="Last frames whose memory is used; fewer are faster and not exact. [6]",
)

memory_policy_option = click.option(
    "--memory-policy",
    type=click.Choice(get_args(MemoryPolicyName)),
    default="original",
    show_default=True,
    help="Which frames are remembered; all but original are not the published rule.",
)


class PromptCommand(click.Command):
    """A command whose prompt options belong to the `--object` typed before them.

    Click hands over the values of each option but not the order between options; the order is kept
    in `ctx.meta`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note the order of the prompt options, then parse as usual."""
        if not ctx.resilient_parsing:
            values, _, order = self.make_parser(ctx).parse_args(args=list(args))
            queues = {name: list(values.get(name) or ()) for name in _PROMPT_OPTIONS}
            names = [p.name for p in order if p.name in queues]
            ctx.meta["sam2_edge.prompts"] = [
                (n, queues[n].pop(0)) for n in names if n and queues[n]
            ]
        return super().parse_args(ctx, args)


def prompt_options(function: _Function) -> _Function:
    """Add --point, --box, --mask and --object to a command of class `PromptCommand`."""
    options = (
        click.option(
            "--point",
            multiple=True,
            metavar="X,Y[,LABEL]",
            help="A click in pixels; label 1 (default) is on the object, 0 is not. Repeatable.",
        ),
        click.option("--box", multiple=True, metavar="X1,Y1,X2,Y2", help="A box in pixels."),
        click.option(
            "--mask", multiple=True, metavar="FILE", help="A mask; nonzero is the object."
        ),
        click.option(
            "--object",
            multiple=True,
            metavar="ID",
            help="The prompts after this are for object ID (1 if left out). Repeatable.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def typed_prompts(ctx: click.Context) -> list[Prompt]:
    """The prompts of the command line, one per object, in order.

    A single --object at the end names the prompts before it.

    Raises click.BadParameter for what is not a number and for an --object without a prompt,
    PromptError for an unreadable mask.
    """
    typed: list[tuple[str, str]] = ctx.meta["sam2_edge.prompts"]
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


def chosen_prompts(
    ctx: click.Context, path: Path | None, start: int, default: Sequence[Prompt] = ()
) -> PromptsByFrame:
    """The prompts of a file, those typed for frame `start`, or there the default ones.

    Raises click.UsageError where there are both a file and typed ones.
    """
    typed = typed_prompts(ctx)
    if path is None:
        return {start: typed or default}
    if typed:
        raise click.UsageError("give prompts as options or with --prompts, not both")
    return load_prompts(path)


def _with(prompt: Prompt, name: str, value: str) -> Prompt:
    if name == "mask":
        if prompt.mask is not None:
            raise click.BadParameter(
                f"two masks for object {prompt.object_id}", param_hint="--mask"
            )
        return replace(prompt, mask=read_mask(value))
    if name == "box":
        if prompt.box is not None:
            raise click.BadParameter(f"two boxes for object {prompt.object_id}", param_hint="--box")
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
