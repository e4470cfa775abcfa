"""Finding and ending every process of a run, whatever became of its parents.

Each child is started with two variables in its environment, which all of its descendants inherit, also those that leave
its process group or session or whose parent died:

    BATON_RUN_ID   "<folder tag>.<random>": the deployment's folder on this machine, and this run of it
    BATON_CHILD    the child's name

A process is ended only when these are read from the process itself, so a process number that was used again is never
hit. SPT_NOENV keeps engines that rename their processes (setproctitle) from overwriting what is read here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from baton.local.clock import Clock
from baton.local.state import ProcessId

RUN = "BATON_RUN_ID"
CHILD = "BATON_CHILD"


def run_id(folder: Path, unique: str) -> str:
    """Identity of one run of the deployment in `folder`; `unique` tells runs apart."""
    return f"{_tag(folder)}.{unique}"


def marks(run: str, child: str) -> dict[str, str]:
    """What a child's environment must hold for it and its descendants to be found."""
    return {RUN: run, CHILD: child, "SPT_NOENV": "1"}


def identify(pid: int) -> ProcessId:
    """The process that has this number now.

    Raises   psutil.NoSuchProcess
    """
    return ProcessId(pid=pid, create_time=psutil.Process(pid).create_time())


def of_folder(folder: Path) -> list[psutil.Process]:
    """Living processes of any run of the deployment in `folder`."""
    return [process for process, run, _ in _marked() if run.startswith(f"{_tag(folder)}.")]


def of_child(run: str, child: str) -> list[psutil.Process]:
    """Living processes of one child of one run."""
    return [process for process, its_run, its_child in _marked() if (its_run, its_child) == (run, child)]


def names(processes: list[psutil.Process]) -> list[str]:
    """The children these belong to, each once, sorted."""
    found = {process.pid for process in processes}
    return sorted({child for process, _, child in _marked() if process.pid in found})


async def end(
    find: Callable[[], list[psutil.Process]],
    *,
    grace_s: float,
    clock: Clock,
    hurry: Callable[[], bool] = lambda: False,
) -> bool:
    """SIGTERM to all that `find` returns, SIGKILL to what is left after `grace_s` or as soon as `hurry()`.

    Looks again until nothing is found, at most 5 s after the first SIGKILL. Returns whether everything is gone.
    """
    asked: set[psutil.Process] = set()
    deadline_s = clock.now() + grace_s
    while living := find():
        if hurry() or clock.now() >= deadline_s:
            return await _kill(find, clock)
        for process in set(living) - asked:
            _signal(process, signal.SIGTERM)
        asked.update(living)
        await clock.sleep(0.05)
    return True


async def _kill(find: Callable[[], list[psutil.Process]], clock: Clock) -> bool:
    give_up_s = clock.now() + 5.0
    while living := find():
        if clock.now() >= give_up_s:
            return False
        for process in living:
            _signal(process, signal.SIGKILL)
        await clock.sleep(0.02)
    return True


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process.send_signal(number)  # psutil compares the process's birth first


def _tag(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:12]


def _marked() -> Iterator[tuple[psutil.Process, str, str]]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            env = process.environ()
            if RUN in env:
                yield process, env[RUN], env.get(CHILD, "?")
