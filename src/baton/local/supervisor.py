"""Keeps the processes of one deployment running until it is told to stop.

    start all side by side --> watch --> (crash: show, wait, start that one again) --> stop: gateway, then engines

It knows processes, logs and what the gateway says of readiness; nothing of recipes, terminals or proofs. Whoever runs
it owns the deployment's lock.

Invariants
  At most one crash of one child costs that child: every other process stays up.
  When `run` returns or raises, no process of the run is left, unless the kernel could not end one (then it raises).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from baton.base.errors import WorkerError
from baton.local import log_lines
from baton.local.backoff import Backoff
from baton.local.child import Child
from baton.local.clock import Clock
from baton.local.layout import GATEWAY, Layout
from baton.local.log_lines import LogTail
from baton.local.readiness import Readiness
from baton.local.run_dir import RunDir
from baton.local.state import ChildState, Crash, Phase, State

GRACE_S = 10.0
"""between SIGTERM and SIGKILL"""

_PHASE_OF_WORKER = {"warming": Phase.WARMING, "ready": Phase.READY}
_ORDER = [Phase.STARTING, Phase.LOADING, Phase.WARMING, Phase.READY]


class Supervisor:
    """Runs one layout once.

    on_change   told every new State, at most once a tick; must not block
    on_ready    awaited once, beside the watching, when the gateway is first ready; what it raises ends the run
    probe       asks the gateway
    tick_s      between looks at logs and readiness
    """

    def __init__(
        self,
        layout: Layout,
        state: State,
        run_dir: RunDir,
        *,
        env: Mapping[str, str],
        probe: Callable[[], Awaitable[Readiness | None]],
        on_change: Callable[[State], None],
        on_ready: Callable[[], Awaitable[None]],
        clock: Clock,
        backoff: Callable[[], Backoff] = Backoff,
        tick_s: float = 0.5,
        grace_s: float = GRACE_S,
    ) -> None:
        self.state = state
        self._run_dir = run_dir
        self._probe = probe
        self._on_change = on_change
        self._on_ready = on_ready
        self._clock = clock
        self._tick_s = tick_s
        self._grace_s = grace_s
        self._children = {plan.name: Child(plan, state.run_id, run_dir.log(plan.name), env) for plan in layout.children}
        self._tails = {name: LogTail(child.log) for name, child in self._children.items()}
        self._backoffs = {name: backoff() for name in self._children}
        self._ready_since: dict[str, float] = {}
        self._trusted_from_s = dict.fromkeys(self._children, 0.0)
        self._stopping = asyncio.Event()
        self._hurry = False
        self._shown: State | None = None
        now = clock.wall()
        self._rows = {
            name: ChildState(
                name=name,
                role=child.plan.role,
                url=child.plan.url,
                log=child.log,
                phase=Phase.STARTING,
                since=now,
            )
            for name, child in self._children.items()
        }

    def stop(self) -> None:
        """Begin to stop; asked a second time, kill at once."""
        self._hurry = self._stopping.is_set()
        self._stopping.set()

    async def run(self) -> None:
        """Start everything, return when stopped.

        Raises   WorkerError if a process can't be started or ended; whatever on_ready raises
        """
        tasks = [asyncio.create_task(self._keep(child)) for child in self._children.values()]
        tasks.append(asyncio.create_task(self._watch()))
        asked = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([asked, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stopping.set()
            for task in (asked, *tasks):
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            await self._stop_all()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _keep(self, child: Child) -> None:
        """Start one child, and again after every crash."""
        name = child.plan.name
        while True:
            process = await child.start()
            # What the gateway says just after a crash may still be of the process that is gone.
            self._trusted_from_s[name] = self._clock.now() + (2.0 if self._rows[name].num_crashes else 0.0)
            self._set(name, phase=Phase.STARTING, detail="", process=process)
            how = await child.ended()
            wait_s = self._crashed(child, how)
            await child.stop(grace_s=0.0, clock=self._clock)
            await self._clock.sleep(wait_s)

    def _crashed(self, child: Child, how: str) -> float:
        """Note and tell one crash; seconds until the restart."""
        name, now = child.plan.name, self._clock.now()
        self._read_log(name)
        wait_s = self._backoffs[name].after_crash(now - self._ready_since.pop(name, now))
        crash = Crash(
            at=self._clock.wall(),
            how=how,
            last_lines=tuple(log_lines.last_words(child.log, 15)),
            restart_in_s=wait_s,
        )
        detail = f"{how}; starts again in {wait_s:.0f} s"
        count = self._rows[name].num_crashes + 1
        self._set(name, phase=Phase.CRASHED, detail=detail, process=None, num_crashes=count, last_crash=crash)
        self.state = self.state.model_copy(update={"ready": False, "reason": f"{name} crashed: {how}"})
        self._tell()
        return wait_s

    async def _watch(self) -> None:
        """Look at logs and readiness until cancelled; say once that it is ready."""
        announced: asyncio.Future[None] | None = None
        try:
            while True:
                for name in self._children:
                    self._read_log(name)
                self._heard(await self._probe())
                self._tell()
                if self.state.ready and announced is None:
                    announced = asyncio.ensure_future(self._on_ready())
                await self._clock.sleep(self._tick_s)
                if announced is not None and announced.done():
                    announced.result()
        finally:
            if announced is not None:
                announced.cancel()
                await asyncio.gather(announced, return_exceptions=True)

    def _heard(self, answer: Readiness | None) -> None:
        """Take in what the gateway said, of itself and of those workers whose process it can have looked at."""
        if answer is None:
            self.state = self.state.model_copy(update={"ready": False, "reason": "the gateway does not answer"})
            return
        self.state = self.state.model_copy(update={"ready": answer.ready, "reason": answer.reason})
        for worker in answer.workers:
            row = self._rows.get(worker.name)
            if row is None or row.process is None or self._clock.now() < self._trusted_from_s[worker.name]:
                continue
            if worker.state in _PHASE_OF_WORKER:
                self._advance(worker.name, _PHASE_OF_WORKER[worker.state], worker.reason)
            elif row.phase in (Phase.WARMING, Phase.READY):
                self._advance(worker.name, Phase.LOADING, worker.reason)
        if self._rows[GATEWAY].process is not None:
            self._advance(GATEWAY, Phase.READY if answer.ready else Phase.WARMING, answer.reason)

    def _advance(self, name: str, phase: Phase, detail: str) -> None:
        row = self._rows[name]
        if phase is Phase.READY:
            self._ready_since.setdefault(name, self._clock.now())
        else:
            self._ready_since.pop(name, None)
        if row.phase is not phase or (detail and detail != row.detail):
            self._set(name, phase=phase, detail=detail or ("" if phase is Phase.READY else row.detail))

    def _read_log(self, name: str) -> None:
        for line in self._tails[name].new_lines():
            row = self._rows[name]
            if row.phase not in (Phase.STARTING, Phase.LOADING, Phase.WARMING):
                continue
            proof, said = log_lines.phase_in(line), log_lines.telling(line)
            if proof is not None and _ORDER.index(proof) > _ORDER.index(row.phase):
                self._set(name, phase=proof)
            if said and name != GATEWAY:
                self._set(name, detail=said)

    def _set(self, name: str, **changes: object) -> None:
        row = self._rows[name]
        if "phase" in changes and changes["phase"] is not row.phase:
            changes["since"] = self._clock.wall()
        self._rows[name] = row.model_copy(update=changes)

    def _tell(self) -> None:
        """Write and show the state if it is another than before."""
        self.state = self.state.model_copy(update={"children": tuple(self._rows.values())})
        if self.state != self._shown:
            self._shown = self.state
            self._run_dir.write_state(self.state)
            self._on_change(self.state)

    async def _stop_all(self) -> None:
        """The gateway first, so that it can end its requests; then the engines, side by side."""
        self.state = self.state.model_copy(update={"ready": False, "reason": "stopping"})
        self._tell()
        engines = [name for name in self._children if name != GATEWAY]
        gone = [await self._stop_one(GATEWAY)] if GATEWAY in self._children else []
        gone += await asyncio.gather(*(self._stop_one(name) for name in engines))
        self.state = self.state.model_copy(update={"reason": "stopped"})
        self._tell()
        if not all(gone):
            left = [f"{p.pid}" for child in self._children.values() for p in child.living()]
            raise WorkerError(f"processes that SIGKILL did not end: {', '.join(left)}; look at them with `ps`")

    async def _stop_one(self, name: str) -> bool:
        child = self._children[name]
        gone = await child.stop(grace_s=self._grace_s, clock=self._clock, hurry=lambda: self._hurry)
        self._set(name, phase=Phase.STOPPED, detail="", process=None)
        self._tell()
        return gone
