"""`baton supervise`: what `baton up --detach` leaves running; not for people."""

from __future__ import annotations

import asyncio
from random import SystemRandom

from rich.console import Console

from baton.cli.machine import StateDir, state_root, this_machine
from baton.cli.options import RecipePath, Settings
from baton.cli.up import Port, deployment_of
from baton.local.clock import Clock
from baton.local.progress import Progress
from baton.local.run_dir import RunDir
from baton.local.session import supervise as run_deployment
from baton.recipe.workers import WorkersFile


def supervise(recipe: RecipePath, settings: Settings = None, port: Port = None, state_dir: StateDir = None) -> None:
    """Run a deployment without a terminal until a signal ends it."""
    deployment, clock = deployment_of(recipe, port, settings), Clock()
    progress = Progress(Console(force_terminal=False, highlight=False), clock.wall)

    async def ready(workers: WorkersFile, gateway_url: str) -> None:
        print(f"{len(workers.workers)} workers ready at {gateway_url}", flush=True)

    asyncio.run(
        run_deployment(
            deployment,
            recipe.resolve(),
            RunDir(state_root(state_dir), deployment.name),
            this_machine(),
            unique=SystemRandom().randbytes(6).hex(),
            clock=clock,
            on_leftovers=lambda names: print(f"ended what an earlier run had left: {', '.join(names)}", flush=True),
            on_change=progress.show,
            on_ready=ready,
        )
    )
