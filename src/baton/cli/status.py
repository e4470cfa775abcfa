"""`baton status`: what runs, how far it is, where it answers."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer
from rich.console import Console

from baton.cli.machine import Name, StateDir, pick_run, state_root
from baton.local import processes
from baton.local.progress import rows_of, table
from baton.local.run_dir import RunDir
from baton.local.state import State

READY, NOT_READY, NOTHING = 0, 1, 3


def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    name: Name = None,
    state_dir: StateDir = None,
) -> None:
    """Show the processes of a deployment. Exits 0 when it is ready, 1 when it is not, 3 when nothing runs."""
    run = pick_run(state_root(state_dir), name)
    state = run.read_state() if run is not None else None
    if run is None or state is None:
        print(
            json.dumps({"running": False, "ready": False}) if as_json else "nothing is running; start with `baton up`"
        )
        raise typer.Exit(NOTHING)
    running = run.owner() is not None
    left = [] if running else processes.names(processes.of_folder(run.folder))
    ready = running and state.ready
    if as_json:
        known = state.model_dump(mode="json")
        print(json.dumps({**known, "running": running, "ready": ready, "leftovers": left}, indent=2))
    else:
        _show(run, state, running=running, left=left)
    if not running and not left:
        raise typer.Exit(NOTHING)
    raise typer.Exit(READY if ready else NOT_READY)


def _show(run: RunDir, state: State, *, running: bool, left: list[str]) -> None:
    console = Console(highlight=False)
    if not running and not left:
        console.print("nothing is running; start with `baton up`")
        return
    if not running:
        console.print(
            f"{state.name}: its supervisor (process {state.supervisor.pid}) is gone, but left {', '.join(left)}"
        )
        console.print("`baton down` ends them; so does the next `baton up`")
        return
    console.print(table(rows_of(state, time.time())))
    verdict = "ready" if state.ready else f"not ready: {state.reason}"
    console.print(f"{state.name}: {verdict}; {state.gateway_url}", soft_wrap=True)
    console.print(f"workers {state.workers_file}, logs {run.logs}", soft_wrap=True)
