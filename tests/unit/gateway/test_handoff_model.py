"""The real runner, model-checked: engines answer, refuse, hang, die and come back, clients leave, in any order.

What must hold whatever happens: every request ends in exactly one way; none is answered twice; every leg is over or
cut; every place on a rank is given back; KV that nobody fetched was given back, or could not be and is counted as left
to its lease. Nothing waits for ever: when every deadline has passed, everything is over.
"""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from baton.base.errors import RequestError, WorkerError
from baton.engine.errors import EngineDisconnected, EngineTimeout, EngineUnreachable
from baton.engine.origin import Origin
from baton.gateway.handoff import Generation, HandoffRunner
from baton.gateway.ledger import Ledger
from baton.gateway.metrics import GatewayMetrics
from baton.policy.handoff import TERMINAL
from baton.policy.prefix_index import PrefixIndex
from baton.policy.rank import Pair, RankId
from baton.policy.routing import Ask, Router
from baton.policy.step_times import StepTimes

PREFILLS, DECODES = ["p0", "p1"], ["d0", "d1"]
PAIRS = [Pair(RankId(p, 0), RankId(d, 0)) for p in PREFILLS for d in DECODES]


class Leg:
    """A response as the runner sees it, which ends when the test says so."""

    def __init__(self, engine: "Engine", request_id: str, params: dict[str, Any]) -> None:
        self.engine, self.request_id, self.params = engine, request_id, params
        self.status, self.headers, self.unheard = 0, {}, False
        self.body, self.error, self.over = b"", None, asyncio.Event()
        self.headed = asyncio.Event()

    async def head(self) -> None:
        await self.headed.wait()
        if self.error is not None:
            raise self.error

    async def whole(self, max_bytes: int) -> bytes:
        await self.over.wait()
        if self.error is not None:
            raise self.error
        return self.body

    read = whole

    def close(self) -> None:
        self.end(EngineDisconnected(self.engine.origin, "x", "closed here"))

    def __enter__(self) -> "Leg":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self, status: int, body: dict[str, Any]) -> None:
        self.status, self.body = status, msgspec.json.encode(body)
        self.end(None)

    def end(self, error: WorkerError | None) -> None:
        if not self.over.is_set():
            self.error = error
            self.over.set()
            self.headed.set()
            self.engine.legs.remove(self)


class Engine:
    """A worker: its running legs, and the KV it holds for others."""

    def __init__(self, name: str, port: int, world: "World") -> None:
        self.origin = Origin("127.0.0.1", port)
        self.worker = SimpleNamespace(name=name)
        self.world = world
        self.alive = True
        self.legs: list[Leg] = []
        self.holding: set[str] = set()

    async def start(self, path: str, body: bytes, *, request_id: str, **_: Any) -> Leg:
        if not self.alive:
            raise EngineUnreachable(self.origin, "connecting", "nobody is there")
        leg = Leg(self, request_id, msgspec.json.decode(body).get("kv_transfer_params", {}))
        self.legs.append(leg)
        return leg

    async def abort(self, ids: list[str], timeout_s: float) -> bool:
        if not self.alive:
            raise EngineUnreachable(self.origin, "aborting", "nobody is there")
        for leg in [leg for leg in self.legs if f"cmpl-{leg.request_id}-0" in ids]:
            leg.answer(200, {"kv_transfer_params": None})
        return True

    async def release(self, model: str, params: dict[str, Any], **_: Any) -> None:
        if not self.alive:
            raise EngineUnreachable(self.origin, "releasing", "nobody is there")
        self.world.fetch(params)

    def finish_prefill(self, leg: Leg) -> None:
        self.holding.add(leg.request_id)
        leg.answer(
            200, {"kv_transfer_params": {"do_remote_prefill": True, "of": self.worker.name, "id": leg.request_id}}
        )

    def die(self) -> None:
        self.alive = False
        self.holding.clear()
        for leg in list(self.legs):
            leg.end(EngineDisconnected(self.origin, "x", "the engine closed the connection"))


class World(RuleBasedStateMachine):
    runner_type: type[HandoffRunner] = HandoffRunner

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.engines = {name: Engine(name, 1000 + i, self) for i, name in enumerate([*PREFILLS, *DECODES])}
        self.router = Router(index=PrefixIndex(100), times=StepTimes())
        self.metrics = GatewayMetrics()
        self.verified = tuple(PAIRS)
        self.router.set_pairs(self.verified)
        self.runner = self.runner_type(self, self.router, self.metrics)  # type: ignore[arg-type]
        self.requests: list[tuple[Generation, asyncio.Task[None], list[str]]] = []

    # -- the pool, as the runner sees it

    def server(self, rank: RankId) -> Engine:
        return self.engines[rank.worker]

    def lost(self, worker: str, reason: str) -> None:
        self.verified = tuple(pair for pair in self.verified if worker not in (pair.prefill.worker, pair.decode.worker))
        self.router.set_pairs(self.verified)

    def not_ready_reason(self) -> str:
        return "nobody is there"

    # -- what the engines do

    def fetch(self, params: dict[str, Any]) -> None:
        if params:  # a decode that works alone has none
            self.engines[params["of"]].holding.discard(params["id"])

    def turn(self) -> None:
        async def turns() -> None:
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    def leg(self, names: list[str], i: int) -> Leg | None:
        legs = [leg for name in names for leg in self.engines[name].legs]
        return legs[i % len(legs)] if legs else None

    async def serve(self, generation: Generation, outcomes: list[str]) -> None:
        async def deliver(leg: Any) -> None:
            await leg.whole(1 << 20)
            outcomes.append("answered")

        try:
            body: dict[str, Any] = {"model": "m", "prompt": "x"}
            await self.runner.run(generation, body, deliver, lambda: bool(outcomes))
        except (WorkerError, RequestError):
            outcomes.append("told of a failure")
        except asyncio.CancelledError:
            outcomes.append("left")

    @rule(alone=st.booleans(), tokens=st.integers(1, 9000))
    def ask(self, alone: bool, tokens: int) -> None:
        ask = Ask(num_prompt_tokens=tokens, decode_alone=alone)
        request_id = f"r{len(self.requests)}"
        outcomes: list[str] = []
        generation = Generation("/v1/completions", "m", request_id, 1e9, {}, ask, 1, Ledger(1.0))
        self.requests.append((generation, self.loop.create_task(self.serve(generation, outcomes)), outcomes))
        self.turn()

    @precondition(lambda self: self.leg(PREFILLS, 0))
    @rule(i=st.integers(0, 5), how=st.sampled_from(["finishes", "finishes", "finishes", "refuses", "offers nothing"]))
    def prefill(self, i: int, how: str) -> None:
        leg = self.leg(PREFILLS, i)
        assert leg is not None
        if how == "finishes":
            leg.engine.finish_prefill(leg)
        elif how == "refuses":
            leg.answer(400, {"error": {"message": "no", "type": "BadRequestError"}})
        else:
            leg.answer(200, {"kv_transfer_params": None})
        self.turn()

    @precondition(lambda self: self.leg(DECODES, 0))
    @rule(
        i=st.integers(0, 5),
        how=st.sampled_from(["begins", "ends", "ends", "refuses unparsed", "refuses parsed", "fails"]),
    )
    def decode(self, i: int, how: str) -> None:
        leg = self.leg(DECODES, i)
        assert leg is not None
        if how in ("begins", "ends", "refuses parsed"):
            self.fetch(leg.params)
        if how == "begins":
            leg.status = 200
            leg.headed.set()
        elif how == "ends":
            leg.answer(200, {})
        elif how.startswith("refuses") and not leg.headed.is_set():
            kind = "BadRequestError" if how == "refuses parsed" else "Bad Request"
            leg.answer(400, {"error": {"message": "no", "type": kind}})
        elif how == "fails" and not leg.headed.is_set():
            leg.answer(500, {"error": {"message": "no", "type": "InternalServerError"}})
        self.turn()

    @precondition(lambda self: self.leg([*PREFILLS, *DECODES], 0))
    @rule(i=st.integers(0, 9))
    def a_deadline_passes(self, i: int) -> None:
        leg = self.leg([*PREFILLS, *DECODES], i)
        assert leg is not None
        self.time_out(leg)
        self.turn()

    def time_out(self, leg: Leg) -> None:
        """The connection is closed: a prefill that runs is ended by that, a decode gives back what it was to fetch."""
        if leg.engine.worker.name in DECODES:
            self.fetch(leg.params)
        leg.end(EngineTimeout(leg.engine.origin, "x", "the deadline passed"))

    @rule(i=st.integers(0, 9), turns=st.integers(0, 4))
    def a_client_leaves(self, i: int, turns: int) -> None:
        if self.requests:
            _, task, _ = self.requests[i % len(self.requests)]
            for _ in range(turns):
                self.loop.run_until_complete(asyncio.sleep(0))
            legs = [leg for name in DECODES for leg in self.engines[name].legs]
            task.cancel()
            self.turn()
            for leg in legs:
                if leg.over.is_set():
                    self.fetch(leg.params)  # a decode whose client leaves gives back what it was to fetch

    @rule(name=st.sampled_from([*PREFILLS, *DECODES]))
    def an_engine_dies(self, name: str) -> None:
        engine = self.engines[name]
        for leg in engine.legs:
            if name in DECODES:
                self.abandoned_by_death.add(leg.params.get("id"))
        engine.die()
        self.turn()

    @rule(name=st.sampled_from([*PREFILLS, *DECODES]))
    def an_engine_is_back_and_verified(self, name: str) -> None:
        self.engines[name].alive = True
        alive = {name for name, engine in self.engines.items() if engine.alive}
        self.verified = tuple(p for p in PAIRS if {p.prefill.worker, p.decode.worker} <= alive)
        self.router.set_pairs(self.verified)
        self.turn()

    @property
    def abandoned_by_death(self) -> set[str]:
        """KV whose decode died with it in hand: only its lease ends it."""
        return self.__dict__.setdefault("_abandoned", set())

    def teardown(self) -> None:
        try:
            for _ in range(20):
                for engine in self.engines.values():
                    for leg in list(engine.legs):
                        self.time_out(leg)
                self.turn()
            self.loop.run_until_complete(self.runner.settle())
            self.check()
        finally:
            for _, task, _ in self.requests:
                task.cancel()
            self.turn()
            self.loop.close()

    def check(self) -> None:
        for generation, task, outcomes in self.requests:
            assert task.done(), "nothing waits for ever"
            assert len(outcomes) <= 1, f"one answer, not {outcomes}"
            assert len(outcomes) == 1 or task.cancelled()
            assert generation.outcome in {*map(str, TERMINAL), ""}
        assert not any(engine.legs for engine in self.engines.values())
        assert [self.router.load(RankId(name, 0)) for name in self.engines] == [0] * 4
        held = {kv for engine in self.engines.values() for kv in engine.holding} - self.abandoned_by_death
        left = next(iter(self.metrics.releases.collect())).samples
        num_left = sum(s.value for s in left if s.labels.get("result") == "left_to_lease" and s.name.endswith("_total"))
        assert len(held) <= num_left, f"KV that nobody gave back and nobody counted: {held}"


SETTINGS = settings(
    max_examples=150, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(autouse=True)
def quiet() -> None:
    logging.getLogger("baton.gateway").setLevel(logging.ERROR)


def test_whatever_happens_every_request_ends_once_and_leaves_nothing_behind() -> None:
    run_state_machine_as_test(World, settings=SETTINGS)


class ForgetsToRelease(HandoffRunner):
    async def _release(self, *_: Any) -> None:
        pass


class ForgetsPrefillsNobodyWaitsFor(HandoffRunner):
    async def _abandon_prefill(self, *_: Any) -> None:
        pass


class ForgetsRanks(HandoffRunner):
    async def run(self, *args: Any) -> None:
        self.router = SimpleNamespace(  # type: ignore[assignment]
            reserve=self.router.reserve, prefilled=self.router.prefilled, release=lambda *_: None
        )
        await super().run(*args)


class AnswersTwice(HandoffRunner):
    async def _once(self, generation: Any, body: Any, reservation: Any, deliver: Any) -> None:
        async def twice(response: Any) -> None:
            await deliver(response)
            await deliver(response)

        await super()._once(generation, body, reservation, twice)


@pytest.mark.parametrize("mutant", [ForgetsToRelease, ForgetsPrefillsNobodyWaitsFor, ForgetsRanks, AnswersTwice])
def test_a_runner_that_is_wrong_is_found_out(mutant: type[HandoffRunner]) -> None:
    class Mutated(World):
        runner_type = mutant

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Mutated, settings=settings(SETTINGS, max_examples=1000, phases=[Phase.generate]))
