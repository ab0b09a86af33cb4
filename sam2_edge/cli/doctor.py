"""`sam2-edge doctor`: the hardware and software of this machine, and what to install."""

from __future__ import annotations

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sam2_edge.runtime.doctor import best_backend, conflicts, findings


@click.command()
def doctor() -> None:
    """Check this machine and suggest what to install."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    components = findings()
    for finding in components:
        value = "none" if finding.value is None else finding.value
        remedy = f": {finding.remedy}" if finding.remedy else ""
        table.add_row(finding.name, escape(value + remedy))
    console = Console()
    console.print(f"Best here: {escape(best_backend(components))}", soft_wrap=True)
    for conflict in conflicts():
        console.print(f"[bold red]To mend:[/] {escape(conflict)}", soft_wrap=True)
    console.print(table)
