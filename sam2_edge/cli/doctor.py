"""`sam2-edge doctor`: what to do, and the hardware and software of this machine."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from sam2_edge.cli.output import results

_EXAMPLES = """\b
Examples:
  sam2-edge doctor
  sam2-edge doctor --json | jq -r .backend
"""


@click.command(epilog=_EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(*, as_json: bool) -> None:
    """Check this machine and suggest what to install."""
    from rich.markup import escape
    from rich.table import Table

    from sam2_edge.runtime.doctor import advice, conflicts, findings

    components, to_mend = findings(), conflicts()
    advised = advice(components)
    if as_json:
        facts = [asdict(finding) for finding in components]
        record = asdict(advised) | {"conflicts": to_mend, "components": facts}
        click.echo(json.dumps(record, indent=1))
        return
    console = results()
    console.print(f"Best here: {escape(advised.reason)}")
    for conflict in to_mend:
        console.print(f"[bold red]To mend:[/] {escape(conflict)}")
    if advised.next_step:
        console.print(f"Next: {escape(advised.next_step)}")
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    explained: dict[str, str] = {}
    for finding in components:
        value, remedy = finding.value or "none", finding.remedy
        if remedy:
            first = explained.setdefault(remedy, finding.name)
            value += f": {remedy if first == finding.name else f'see {first}'}"
        table.add_row(finding.name, escape(value))
    console.print()
    console.print(table, soft_wrap=False)
