"""`baton down`: stop whatever is there."""

from __future__ import annotations

import asyncio
from pathlib import Path

from baton.cli.machine import Name, StateDir, pick_run, state_root, this_machine
from baton.local.clock import Clock
from baton.local.run_dir import RunDir, all_runs
from baton.local.session import end_run


def down(name: Name = None, state_dir: StateDir = None) -> None:
    """Stop every deployment of this machine (or one), and whatever a killed one left behind."""
    root = state_root(state_dir)
    named = pick_run(root, name) if name is not None else None
    runs = all_runs(root) if named is None else [named]
    stopped = asyncio.run(_end_all(runs, this_machine().temp))
    if not stopped:
        print("nothing was running")
    for run, children in stopped:
        print(f"{run.name}: stopped {', '.join(children)}")


async def _end_all(runs: list[RunDir], temp: Path) -> list[tuple[RunDir, list[str]]]:
    ended = await asyncio.gather(*(end_run(run, temp, Clock()) for run in runs))
    return [(run, children) for run, children in zip(runs, ended, strict=True) if children]
