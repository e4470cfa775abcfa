"""One child process: started in its own session, its output in its log, ended with all its descendants.

It knows nothing of phases or of when to start again (`supervisor` does).

The life of a child
  1. `start` writes a line to the log, then launches the command with the marks that `processes` looks for.
  2. `ended` returns once, when the process is gone, with how it ended.
  3. `stop` ends what is left of it: descendants that outlived it hold its ports and memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from baton.base.errors import WorkerError
from baton.engine.command import Command
from baton.local import processes
from baton.local.clock import Clock
from baton.local.log_lines import HEADER
from baton.local.state import ProcessId
from baton.recipe.recipe import Role


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildPlan:
    """What to start; `role` is None for the gateway, `url` is where it answers."""

    name: str
    role: Role | None
    command: Command
    url: str


class Child:
    """One child of one run; may be started again after it ended."""

    def __init__(self, plan: ChildPlan, run: str, log: Path, env: Mapping[str, str]) -> None:
        self.plan = plan
        self.log = log
        self.id: ProcessId | None = None
        self._run = run
        self._env = {**env, **plan.command.env, **processes.marks(run, plan.name)}
        self._process: asyncio.subprocess.Process | None = None
        self._num_starts = 0

    async def start(self) -> ProcessId:
        """Launch it.

        Raises   WorkerError if the program can't be executed
        """
        self._num_starts += 1
        argv = self.plan.command.argv
        self.log.parent.mkdir(parents=True, exist_ok=True)
        unfinished = not self._ends_with_a_line()
        with self.log.open("ab") as log:
            log.write(b"\n" if unfinished else b"")
            log.write(f"{HEADER}start {self._num_starts} of {self.plan.name}: {' '.join(argv)}\n".encode())
            log.flush()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._env,
                    start_new_session=True,
                )
            except OSError as error:
                raise WorkerError(f"{self.plan.name}: cannot execute {argv[0]}: {error.strerror}") from error
        try:
            self.id = processes.identify(self._process.pid)
        except psutil.NoSuchProcess:  # it ended already; `ended` says how
            self.id = ProcessId(pid=self._process.pid, create_time=0.0)
        return self.id

    async def ended(self) -> str:
        """Wait for its end; how it ended, in words."""
        assert self._process is not None, f"{self.plan.name} was not started"
        code = await self._process.wait()
        self.id = None
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def living(self) -> list[psutil.Process]:
        """It and all its descendants."""
        return processes.of_child(self._run, self.plan.name)

    async def stop(self, *, grace_s: float, clock: Clock, hurry: Callable[[], bool] = lambda: False) -> bool:
        """End it and all its descendants; whether nothing is left."""
        gone = await processes.end(self.living, grace_s=grace_s, clock=clock, hurry=hurry)
        if gone and self._process is not None:
            await self._process.wait()
        return gone

    def _ends_with_a_line(self) -> bool:
        try:
            with self.log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - 1))
                return log.read() in (b"", b"\n")
        except FileNotFoundError:
            return True
