"""The supervisor: phases, crashes, restarts, the end."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from baton.base.errors import WorkerError
from baton.engine.command import Command
from baton.local import processes
from baton.local.child import ChildPlan
from baton.local.clock import Clock
from baton.local.layout import GATEWAY, Layout
from baton.local.processes import identify
from baton.local.readiness import Readiness, WorkerReadiness
from baton.local.run_dir import RunDir
from baton.local.state import ChildState, Phase, State
from baton.local.supervisor import Supervisor
from baton.recipe.recipe import Role
from baton.recipe.workers import Worker, WorkersFile

NAP = "import time; time.sleep(600)"
LOADS = f"print('INFO 11-23 15:32:36 [a.py:1] Starting to load model /m', flush=True); {NAP}"
CRASHES = "import sys; print('the reason', flush=True); sys.exit(3)"
TICK_S = 0.123


class VirtualClock:
    """Time that passes only by sleeping, at once; remembers every wait but the supervisor's ticks."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.waits: list[float] = []

    def clock(self) -> Clock:
        return Clock(now=lambda: self.time, wall=lambda: self.time, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        if seconds >= 1:
            self.waits.append(seconds)
        self.time += seconds
        await asyncio.sleep(0.002)


class Bench:
    """One supervisor over small programs, with a gateway that says what the test wants."""

    def __init__(self, tmp_path: Path, programs: dict[str, str], clock: Clock) -> None:
        self.run_dir = RunDir(tmp_path, "t")
        self.states: list[State] = []
        self.answer: Readiness | None = None
        self.num_ready = 0
        self.on_ready: Callable[[], Awaitable[None]] = self.count
        plans = [
            ChildPlan(
                name=name,
                role=None if name == GATEWAY else Role(name.partition("-")[0]),
                command=Command((sys.executable, "-S", "-c", code), {"MINE": "1"}),
                url="http://127.0.0.1:1",
            )
            for name, code in programs.items()
        ]
        workers = tuple(
            Worker(name=f"{role}-0", role=role, url="http://127.0.0.1:1", nixl_port=2) for role in ("prefill", "decode")
        )
        state = State(
            run_id=processes.run_id(self.run_dir.folder, "one"),
            name="t",
            recipe=Path("r.yaml"),
            recipe_digest="d",
            model="m",
            gateway_url="http://127.0.0.1:1",
            workers_file=self.run_dir.workers_file,
            supervisor=identify(os.getpid()),
            started_at=clock.wall(),
        )
        self.supervisor = Supervisor(
            Layout(
                children=tuple(plans), workers=WorkersFile(model="m", workers=workers), gateway_url="http://127.0.0.1:1"
            ),
            state,
            self.run_dir,
            env=os.environ,
            probe=self.probe,
            on_change=self.states.append,
            on_ready=self.first_ready,
            clock=clock,
            tick_s=TICK_S,
            grace_s=5.0,
        )
        self.task = asyncio.create_task(self.supervisor.run())

    async def probe(self) -> Readiness | None:
        return self.answer

    async def first_ready(self) -> None:
        await self.on_ready()

    async def count(self) -> None:
        self.num_ready += 1

    def row(self, name: str) -> ChildState:
        return next(child for child in self.supervisor.state.children if child.name == name)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not (self.supervisor.state.children and holds()):
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.005)

    async def stopped(self) -> None:
        self.supervisor.stop()
        await self.task


Make = Callable[..., Bench]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Bench] = []

    def make(programs: dict[str, str], clock: Clock | None = None) -> Bench:
        made.append(Bench(tmp_path, programs, clock or Clock()))
        return made[-1]

    yield make
    for each in made:
        each.supervisor.stop()
        await asyncio.gather(each.task, return_exceptions=True)
    assert processes.of_folder(tmp_path / "t") == []


def ready(**states: str) -> Readiness:
    workers = [WorkerReadiness(name.replace("_", "-"), state) for name, state in states.items()]  # type: ignore[arg-type]
    return Readiness(all(worker.state == "ready" for worker in workers), "", tuple(workers))


async def test_phases_from_start_to_stop(bench: Make) -> None:
    """Launched, then loading by its log, then warming and ready by the gateway's word; told once; then all stopped."""
    run = bench({"prefill-0": LOADS, "decode-0": NAP, GATEWAY: NAP})
    await run.until(lambda: run.row("prefill-0").phase is Phase.LOADING)
    assert run.row("prefill-0").detail == "Starting to load model /m"
    assert run.row("decode-0").phase is Phase.STARTING
    assert run.supervisor.state.reason == "the gateway does not answer"
    run.answer = ready(prefill_0="warming", decode_0="unreachable")
    await run.until(lambda: run.row("prefill-0").phase is Phase.WARMING)
    assert (run.row("decode-0").phase, run.row(GATEWAY).phase) == (Phase.STARTING, Phase.WARMING)
    run.answer = ready(prefill_0="ready", decode_0="ready")
    await run.until(lambda: run.num_ready == 1)
    assert {child.phase for child in run.supervisor.state.children} == {Phase.READY}
    pids = [child.process.pid for child in run.supervisor.state.children if child.process]
    assert len(pids) == 3
    await run.stopped()
    final = run.run_dir.read_state()
    assert final is not None
    assert {child.phase for child in final.children} == {Phase.STOPPED}
    assert (final.ready, final.reason) == (False, "stopped")
    assert run.num_ready == 1


async def test_a_crash_waits_longer_each_time(bench: Make) -> None:
    """Back-off doubles to 30 s; the crash is told with how it ended and the last lines; the others stay up."""
    virtual = VirtualClock()
    run = bench({"prefill-0": NAP, "decode-0": CRASHES, GATEWAY: NAP}, virtual.clock())
    await run.until(lambda: run.row("decode-0").num_crashes == 7)
    steady = {name: run.row(name).process for name in ("prefill-0", GATEWAY)}
    await run.stopped()
    assert virtual.waits[:6] == [1, 2, 4, 8, 16, 30]
    crash = next(c.last_crash for s in run.states for c in s.children if c.last_crash)
    assert (crash.how, crash.last_lines[-1], crash.restart_in_s) == ("exit code 3", "the reason", 1.0)
    assert all(steady.values())
    for state in run.states:
        for child in state.children:
            if child.name in steady and child.process:
                assert child.process == steady[child.name]
    reasons = [state.reason for state in run.states]
    assert "decode-0 crashed: exit code 3" in reasons


async def test_a_restart_replaces_what_was_left(bench: Make, tmp_path: Path) -> None:
    """Descendants of a crashed child are ended before it starts again, and the new one becomes ready."""
    spawns = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-S", "-c", "import os, time; os.setsid(); time.sleep(600)"])
{NAP}
"""
    run = bench({"prefill-0": spawns, GATEWAY: NAP}, VirtualClock().clock())
    run.answer = ready(prefill_0="ready")
    await run.until(lambda: len(processes.of_child(run.supervisor.state.run_id, "prefill-0")) == 2)
    first = run.row("prefill-0").process
    assert first is not None
    os.kill(first.pid, 9)
    await run.until(lambda: run.row("prefill-0").num_crashes == 1 and run.row("prefill-0").process is not None)
    crash = run.row("prefill-0").last_crash
    assert crash is not None
    assert crash.how == "killed by SIGKILL"
    await run.until(lambda: run.row("prefill-0").phase is Phase.READY and run.supervisor.state.ready)
    await run.until(lambda: len(processes.of_child(run.supervisor.state.run_id, "prefill-0")) == 2)
    assert first.pid not in [p.pid for p in processes.of_child(run.supervisor.state.run_id, "prefill-0")]
    assert run.num_ready == 1
    await run.stopped()


async def test_a_worker_the_gateway_lost_is_not_shown_as_ready(bench: Make) -> None:
    """A process that lives but does not answer has fallen back."""
    run = bench({"prefill-0": NAP, GATEWAY: NAP})
    run.answer = ready(prefill_0="ready")
    await run.until(lambda: run.row("prefill-0").phase is Phase.READY)
    run.answer = ready(prefill_0="unreachable")
    await run.until(lambda: run.row("prefill-0").phase is Phase.LOADING)
    assert not run.supervisor.state.ready
    await run.stopped()


async def test_what_cannot_be_executed_ends_the_run(bench: Make) -> None:
    """A missing program is no crash to retry; everything else is stopped."""
    run = bench({GATEWAY: NAP})
    run.supervisor._children[GATEWAY].plan = ChildPlan(
        name=GATEWAY, role=None, command=Command(("/no/such",), {}), url="http://127.0.0.1:1"
    )
    with pytest.raises(WorkerError, match="gateway: cannot execute /no/such: No such file"):
        await run.task
    run.task = asyncio.create_task(asyncio.sleep(0))


async def test_an_error_of_on_ready_ends_the_run(bench: Make) -> None:
    """What the caller's own step raises is not swallowed, and nothing is left running."""
    run = bench({"prefill-0": NAP, GATEWAY: NAP})

    async def fail() -> None:
        raise ValueError("mine")

    run.on_ready = fail
    run.answer = ready(prefill_0="ready")
    with pytest.raises(ValueError, match="mine"):
        await run.task
    assert run.supervisor.state.reason == "stopped"


async def test_stopping_while_on_ready_runs(bench: Make) -> None:
    """Ctrl-C in the middle of a proof cancels it."""
    run = bench({"prefill-0": NAP, GATEWAY: NAP})
    begun = asyncio.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.sleep(600)

    run.on_ready = endless
    run.answer = ready(prefill_0="ready")
    await asyncio.wait_for(begun.wait(), 20)
    await run.stopped()
