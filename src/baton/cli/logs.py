"""`baton logs`: what the processes wrote."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from baton.base.errors import ConfigError
from baton.cli.machine import Name, StateDir, pick_run, state_root
from baton.local.log_lines import LogTail
from baton.local.run_dir import RunDir
from baton.local.state import ChildState


def logs(
    what: Annotated[str | None, typer.Argument(help="Role or process; default all.", show_default=False)] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on, across restarts, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Last lines of each process to begin with.")] = 50,
    name: Name = None,
    state_dir: StateDir = None,
) -> None:
    """Print the logs of a deployment's processes, each line with its process where there are several."""
    run = pick_run(state_root(state_dir), name)
    files = _files(run, what)
    width = max(len(child) for child in files) if len(files) > 1 else 0
    tails = {child: LogTail(path, from_start=True) for child, path in files.items()}
    for child, tail in tails.items():
        _print(child, tail.new_lines()[-lines:] if lines else [], width)
    while follow:
        time.sleep(0.2)
        for child, tail in tails.items():
            _print(child, tail.new_lines(), width)


def _files(run: RunDir | None, what: str | None) -> dict[str, Path]:
    state = run.read_state() if run is not None else None
    if state is None:
        raise ConfigError("there are no logs: nothing has run here; start with `baton up`")
    chosen = [child for child in state.children if what is None or what in (child.name, child.role)]
    if not chosen:
        raise ConfigError(
            f"no role or process {what!r} in {state.name}; there are: {', '.join(_known(state.children))}"
        )
    return {child.name: child.log for child in chosen}


def _known(children: tuple[ChildState, ...]) -> list[str]:
    roles = {str(child.role) for child in children if child.role is not None}
    return [*sorted(roles), *(child.name for child in children)]


def _print(child: str, lines: list[str], width: int) -> None:
    for line in lines:
        print(f"{child:<{width}} | {line}" if width else line)
    if lines:
        print(end="", flush=True)
