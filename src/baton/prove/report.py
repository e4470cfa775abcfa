"""A verdict on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from baton.prove.verdict import Check, Verdict


def print_verdict(console: Console, verdict: Verdict) -> None:
    """Print a line a check, and the one that matters."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in verdict.checks:
        table.add_row(_mark(check), check.name, Text(check.found))
    console.print(table)
    if verdict.proven:
        console.print(Text("PROVEN", style="bold green"), "disaggregated, and the tokens are right")
    else:
        console.print(Text("NOT PROVEN:", style="bold red"), Text(verdict.reason), soft_wrap=True)


def _mark(check: Check) -> Text:
    return Text("holds", style="green") if check.ok else Text("FAILS", style="bold red")
