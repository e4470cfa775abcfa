"""Run a deployment on this machine from nothing to nothing, and end one that somebody else runs.

The life of a run
  1. Take the lock: one run of a deployment at a time.
  2. Clear what a run that was killed left behind.
  3. Choose ports, threads and GPUs; write workers.yaml and state.json; only then start anything.
  4. Supervise until SIGINT or SIGTERM; a second one kills at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from baton.base.errors import WorkerError
from baton.engine.one_machine import HOST
from baton.local import gpus, hub, processes
from baton.local.clock import Clock
from baton.local.layout import lay_out
from baton.local.ports import Ports, first_port, gateway_port, is_free
from baton.local.readiness import ReadinessProbe
from baton.local.run_dir import RunDir
from baton.local.state import Phase, State
from baton.local.supervisor import GRACE_S, Supervisor
from baton.recipe.deployment import Deployment
from baton.recipe.workers import WorkersFile, dump_workers


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What a run needs to know of where it runs.

    env      environment that children inherit
    cores    numbers of the cores this process may use
    temp     folder for temporary files
    python   interpreter with baton
    vllm     what stands before `serve`
    """

    env: Mapping[str, str]
    cores: Sequence[int]
    temp: Path
    python: str
    vllm: tuple[str, ...]


async def supervise(
    deployment: Deployment,
    recipe: Path,
    run_dir: RunDir,
    machine: Machine,
    *,
    unique: str,
    clock: Clock,
    on_leftovers: Callable[[list[str]], None],
    on_change: Callable[[State], None],
    on_ready: Callable[[WorkersFile, str], Awaitable[None]],
) -> None:
    """Run a deployment until a signal ends it; `unique` tells this run from all others.

    Raises   ConfigError if it is running already, or can't run here; WorkerError if a process can't be started or ended
    """
    with run_dir.lock("up"):
        left = await clear_leftovers(run_dir, machine.temp, clock)
        if left:
            on_leftovers(left)
        gateway = deployment.gateway
        port = gateway_port(gateway.host, gateway.port)
        deployment = replace(deployment, gateway=gateway.model_copy(update={"port": port}))
        layout = lay_out(
            deployment,
            ports=Ports(lambda number: is_free(HOST, number) and number != port, first=first_port(run_dir.folder)),
            cores=machine.cores,
            gpus=gpus.of_deployment(deployment, machine.env),
            hub=hub.cache(machine.env, Path.home()),
            workers_path=run_dir.workers_file,
            python=machine.python,
            vllm=machine.vllm,
        )
        run_dir.write(run_dir.workers_file.name, dump_workers(layout.workers))
        run_dir.fresh_logs()
        state = State(
            run_id=processes.run_id(run_dir.folder, unique),
            name=deployment.name,
            recipe=recipe,
            recipe_digest=deployment.recipe_digest,
            model=deployment.model.name,
            gateway_url=layout.gateway_url,
            workers_file=run_dir.workers_file,
            supervisor=processes.identify(os.getpid()),
            started_at=clock.wall(),
        )
        run_dir.write_state(state)
        with contextlib.closing(ReadinessProbe(layout.gateway_url)) as probe, _scratch(state, machine) as scratch:
            supervisor = Supervisor(
                layout,
                state,
                run_dir,
                env={
                    "TORCHINDUCTOR_CACHE_DIR": str(run_dir.compiled),
                    **machine.env,
                    "TMPDIR": str(scratch),
                },
                probe=probe,
                on_change=on_change,
                on_ready=lambda: on_ready(layout.workers, layout.gateway_url),
                clock=clock,
            )
            with _signals(supervisor.stop):
                await supervisor.run()


async def clear_leftovers(run_dir: RunDir, temp: Path, clock: Clock, *, grace_s: float = 3.0) -> list[str]:
    """End what an earlier run left when it was killed; the names of it. The caller owns the lock.

    Raises   WorkerError if something can't be ended
    """

    def find() -> list[psutil.Process]:
        return processes.of_folder(run_dir.folder)

    names = processes.names(find())
    if not await processes.end(find, grace_s=grace_s, clock=clock):
        left = ", ".join(str(process.pid) for process in find())
        raise WorkerError(f"processes of an earlier run of {run_dir.name} that SIGKILL did not end: {left}")
    _remove_scratch(temp, run_dir)
    return names


async def end_run(run_dir: RunDir, temp: Path, clock: Clock, *, patience_s: float = 3 * GRACE_S) -> list[str]:
    """End a deployment, whoever runs it and whether or not that one still lives; the names of what was ended.

    patience_s   for the supervisor to stop by itself; then it is killed and its children are ended from here
    Raises       WorkerError if something can't be ended
    """
    ended = []
    owner = run_dir.owner()
    if owner is not None and owner[1] == "up":
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor = psutil.Process(owner[0])
            if run_dir.owner() == owner:  # it holds the lock: the number is its own
                ended = _names_of_children(run_dir)
                supervisor.terminate()
                if not await run_dir.lock_within(patience_s, clock):
                    supervisor.kill()
    await run_dir.lock_within(patience_s, clock)
    with run_dir.lock("down"):
        ended += [name for name in await clear_leftovers(run_dir, temp, clock) if name not in ended]
        state = run_dir.read_state()
        if state is not None and state.reason != "stopped":
            stopped = [child.model_copy(update={"phase": Phase.STOPPED, "process": None}) for child in state.children]
            run_dir.write_state(
                state.model_copy(update={"ready": False, "reason": "stopped", "children": tuple(stopped)})
            )
    return ended


def _names_of_children(run_dir: RunDir) -> list[str]:
    return processes.names(processes.of_folder(run_dir.folder)) or ["supervisor"]


def _remove_scratch(temp: Path, run_dir: RunDir) -> None:
    for scratch in temp.glob(f"baton-{processes.run_id(run_dir.folder, '*')}"):
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _scratch(state: State, machine: Machine) -> Iterator[Path]:
    """A folder for the sockets and other temporary files of engines, which they leave behind when they are killed.

    Its path is short: the name of a socket has 107 bytes.
    """
    folder = machine.temp / f"baton-{state.run_id}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP call `stop` instead of raising."""
    loop = asyncio.get_running_loop()
    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in caught:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
