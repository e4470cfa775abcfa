"""What the person in front of `baton up` sees: a table kept up to date or, without a terminal, a line per change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from baton.local.state import ChildState, Phase, State

_STYLE = {
    Phase.INSTALLING: "cyan",
    Phase.STARTING: "cyan",
    Phase.LOADING: "yellow",
    Phase.WARMING: "yellow",
    Phase.READY: "bold green",
    Phase.CRASHED: "bold red",
    Phase.STOPPED: "dim",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One process on the screen; `seconds` in this phase, or from the start to readiness once it is ready."""

    name: str
    phase: Phase
    seconds: float
    detail: str


def rows_of(state: State, now: float) -> list[Row]:
    """The rows of a state at `now`, seconds since 1970."""
    return [
        Row(name=child.name, phase=child.phase, seconds=_seconds(child, state, now), detail=child.detail)
        for child in state.children
    ]


def table(rows: Sequence[Row]) -> Table:
    """A line per process: name, phase, seconds, the last line that says something."""
    grid = Table(box=None, pad_edge=False, show_header=False, expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, width=10)
    grid.add_column(no_wrap=True, justify="right", width=7)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1, style="dim")
    for row in rows:
        grid.add_row(row.name, Text(row.phase, style=_STYLE[row.phase]), f"{row.seconds:.0f} s", Text(row.detail))
    return grid


def crash_report(child: ChildState) -> Text:
    """What a crash left: how it ended, its last lines, when it starts again, where the whole log is."""
    crash = child.last_crash
    assert crash is not None, f"{child.name} has not crashed"
    text = Text(
        f"{child.name} crashed ({crash.how}); it starts again in {crash.restart_in_s:.0f} s\n", style="bold red"
    )
    for line in crash.last_lines:
        text.append(f"  {child.name} | {line}\n", style="not bold dim")
    text.append(f"  all of it: {child.log}", style="not bold default")
    return text


def changes(before: State | None, after: State) -> list[str]:
    """One plain line for every phase that changed between two states."""
    known = {child.name: child.phase for child in before.children} if before else {}
    lines = []
    for child in after.children:
        if known.get(child.name) is not child.phase:
            at = max(0.0, child.since - after.started_at)
            lines.append(f"{at:7.1f} s  {child.name:<12} {child.phase:<10} {child.detail}".rstrip())
    return lines


class Progress:
    """Shows states as they come, until closed; on a terminal as one table that is redrawn, else as plain lines.

    wall   the clock that states' times are on
    """

    def __init__(self, console: Console, wall: Callable[[], float]) -> None:
        self._console = console
        self._wall = wall
        self._state: State | None = None
        self._installing: tuple[str, float] | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=4, redirect_stderr=False
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, state: State) -> None:
        """Show a state; a crash that was not shown before is printed with its last lines."""
        before, self._state = self._state, state
        if self._live is None:
            for line in changes(before, state):
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        known = {child.name: child.last_crash for child in before.children} if before else {}
        for child in state.children:
            if child.last_crash is not None and child.last_crash != known.get(child.name):
                self._console.print(crash_report(child), soft_wrap=True)

    def show_installing(self, detail: str, since: float) -> None:
        """Show that the engine is being installed; `detail` is the installer's last line."""
        if self._live is None and self._installing is None:
            self._console.print("installing the engine (vLLM for CPU and NIXL; minutes, once)", highlight=False)
        if self._installing is None or not detail.startswith("WARNING"):
            self._installing = detail.strip(), since

    def installed(self) -> None:
        """Take the installer's row away."""
        self._installing = None

    def _render(self) -> Group:
        rows = []
        if self._installing is not None:
            detail, since = self._installing
            rows.append(Row(name="engine", phase=Phase.INSTALLING, seconds=self._wall() - since, detail=detail))
        if self._state is not None:
            rows += rows_of(self._state, self._wall())
        return Group(table(rows))


def _seconds(child: ChildState, state: State, now: float) -> float:
    return max(0.0, child.since - state.started_at if child.phase is Phase.READY else now - child.since)
