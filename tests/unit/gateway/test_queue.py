"""The admission queue on an event loop whose time passes only when nothing else is left to do."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton.base.errors import RequestError
from baton.gateway.metrics import GatewayMetrics
from baton.gateway.queue import AdmissionQueue, tenant_of
from baton.policy.admission import Admission
from baton.policy.tenant import Tenant
from baton.policy.token_bucket import TokenBucket
from baton.recipe.api_keys import ApiKeysFile, key_sha256

HOLD_S = 0.5


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its time jumps to the next timer instead of being waited for."""

    def __init__(self) -> None:
        super().__init__(Jumping(self))
        self.now_s = 1000.0
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        return self.now_s


class Jumping(selectors.DefaultSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self.loop = loop

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits, and nothing will ever happen"
        self.loop.now_s += max(0.0, timeout)
        return super().select(0)


class Engines:
    """What the router would know: a wait that each request that goes on makes longer."""

    def __init__(self, wait_s: float = 0.0, each_s: float = 0.0) -> None:
        self.wait_s, self.each_s = wait_s, each_s
        self.metrics = GatewayMetrics()
        self.admission = Admission(max_queued=100, hold_s=HOLD_S)
        self.queue = AdmissionQueue(self.admission, self.predicted_wait_s, self.metrics)
        self.served: list[str] = []

    def predicted_wait_s(self, now_s: float) -> float:
        return self.wait_s

    async def ask(self, tenant: Tenant, num_tokens: int = 0) -> None:
        await self.queue.enter(tenant, num_tokens)
        self.wait_s += self.each_s
        self.served.append(tenant.name)

    def free(self, wait_s: float = 0.0) -> None:
        self.wait_s = wait_s
        self.queue.wake()


def tenant(name: str, priority: int = 0, ttft_deadline_s: float = 10.0, num_tokens: float = 0) -> Tenant:
    tokens = TokenBucket(1e-9, num_tokens, 1000.0) if num_tokens else None
    return Tenant(name, priority, ttft_deadline_s, None, tokens)


def on_loop(test: Callable[[JumpingLoop], Awaitable[None]]) -> None:
    loop = JumpingLoop()
    try:
        loop.run_until_complete(test(loop))
        assert loop.failures == []
        assert asyncio.all_tasks(loop) == set()
    finally:
        loop.close()


async def turns(num: int = 6) -> None:
    for _ in range(num):
        await asyncio.sleep(0)


def test_while_the_gate_is_open_nobody_waits_even_for_a_turn_of_the_loop() -> None:
    engines = Engines()
    coroutine = engines.ask(tenant("a"))
    loop = JumpingLoop()

    async def run() -> None:
        with pytest.raises(StopIteration):
            coroutine.send(None)

    loop.run_until_complete(run())
    loop.close()
    assert engines.served == ["a"]


def test_who_waits_goes_on_when_something_is_released_by_class_and_one_by_one() -> None:
    async def test(loop: JumpingLoop) -> None:
        engines = Engines(wait_s=1.0, each_s=0.2)
        tasks = [loop.create_task(engines.ask(tenant(name, "isb".index(name)))) for name in "bbsii"]
        await turns()
        assert engines.served == []
        assert dict(engines.queue.lengths()) == {"interactive": 2, "standard": 1, "batch": 2}
        engines.free()
        await turns(12)
        assert engines.served == ["i", "s", "b"], "each that goes on makes the wait longer: the third shuts the gate"
        engines.free()
        await asyncio.gather(*tasks)
        assert engines.served == ["i", "s", "b", "i", "b"]

    on_loop(test)


def test_the_gate_is_looked_at_again_though_nothing_is_released() -> None:
    async def test(loop: JumpingLoop) -> None:
        engines = Engines(wait_s=1.0)
        task = loop.create_task(engines.ask(tenant("a")))
        await turns()
        engines.wait_s = 0.0
        before_s = loop.time()
        await task
        assert loop.time() - before_s <= 0.11

    on_loop(test)


def test_whose_deadline_passes_is_told_then_and_when_to_come_again() -> None:
    async def test(loop: JumpingLoop) -> None:
        engines = Engines(wait_s=1.0)
        with pytest.raises(RequestError, match=r"did not start in the 3 s") as caught:
            await engines.ask(tenant("a", ttft_deadline_s=3.0))
        assert loop.time() == pytest.approx(1003.0, abs=0.01)
        assert (caught.value.status, caught.value.kind) == (503, "service_unavailable")
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s >= 1.0
        assert engines.metrics.sheds.labels(**{"reason": "expired", "class": "interactive"}).n == 1

    on_loop(test)


def test_a_key_over_its_limit_and_a_request_that_is_too_late_are_told_at_once() -> None:
    async def test(loop: JumpingLoop) -> None:
        engines = Engines(wait_s=5.0)
        with pytest.raises(RequestError, match=r"would not start in the 2 s") as late:
            await engines.ask(tenant("a", ttft_deadline_s=2.0))
        assert late.value.status == 503
        limited = Tenant("team", 2, 10.0, TokenBucket(0.5, 1.0, 1000.0))
        engines.free()
        await engines.ask(limited)
        with pytest.raises(RequestError, match=r"The API key team is over its limit; try again in 2 s") as over:
            await engines.ask(limited)
        assert (over.value.status, over.value.kind) == (429, "rate_limit_exceeded")
        assert loop.time() == 1000.0
        assert engines.metrics.sheds.labels(**{"reason": "rate_limited", "class": "batch"}).n == 1

    on_loop(test)


def test_who_loses_its_place_in_a_full_queue_is_told_at_once() -> None:
    async def test(loop: JumpingLoop) -> None:
        engines = Engines(wait_s=1.0)
        engines.admission.max_queued = 1
        low = loop.create_task(engines.ask(tenant("low", 2)))
        await turns()
        high = loop.create_task(engines.ask(tenant("high")))
        with pytest.raises(RequestError, match="queue is full"):
            await low
        assert loop.time() == 1000.0
        engines.free()
        await high

    on_loop(test)


def test_who_leaves_while_waiting_gets_its_tokens_back_and_leaves_no_timer() -> None:
    async def test(loop: JumpingLoop) -> None:
        engines, of = Engines(wait_s=1.0), tenant("a", num_tokens=100)
        task = loop.create_task(engines.ask(of, 100))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert sum(engines.queue.lengths().values()) == 0
        engines.free()
        await engines.ask(of, 100)

    on_loop(test)


@pytest.mark.parametrize("num_turns", range(5))
@pytest.mark.parametrize("cancel_first", [True, False])
def test_who_leaves_in_the_very_turn_of_being_let_go_holds_nobody_up(num_turns: int, cancel_first: bool) -> None:
    async def test(loop: JumpingLoop) -> None:
        engines, of = Engines(wait_s=1.0), tenant("leaves", num_tokens=100)
        leaves = loop.create_task(engines.ask(of, 100))
        stays = loop.create_task(engines.ask(tenant("stays")))
        await turns()
        if cancel_first:
            leaves.cancel()
            await turns(num_turns)
            engines.free()
        else:
            engines.free()
            await turns(num_turns)
            leaves.cancel()
        await asyncio.wait([leaves, stays])
        assert loop.time() == 1000.0, "it went on without waiting for a timer"
        assert engines.served[-1] == "stays"
        if leaves.cancelled():
            engines.free()
            await engines.ask(of, 100)  # its tokens are back

    on_loop(test)


def test_a_router_that_fails_lets_nobody_wait_past_a_deadline() -> None:
    loop = JumpingLoop()

    async def test() -> None:
        engines = Engines(wait_s=1.0)
        task = loop.create_task(engines.ask(tenant("a", ttft_deadline_s=1.0)))
        await turns()

        def fails(now_s: float) -> float:
            raise ZeroDivisionError

        engines.queue._predicted_wait_s = fails
        with pytest.raises(RequestError, match="did not start"):
            await task

    loop.run_until_complete(test())
    loop.close()
    assert {type(one["exception"]) for one in loop.failures} == {ZeroDivisionError}


def test_when_the_gateway_stops_all_who_wait_are_told() -> None:
    async def test(loop: JumpingLoop) -> None:
        engines = Engines(wait_s=1.0)
        tasks = [loop.create_task(engines.ask(tenant(str(i)))) for i in range(3)]
        await turns()
        engines.queue.close()
        await asyncio.wait(tasks)
        assert [str(task.exception()) for task in tasks] == ["The service is stopping; try again in 1 s."] * 3
        assert loop.time() == 1000.0
        assert sum(engines.queue.lengths().values()) == 0

    on_loop(test)


def test_a_class_is_asked_for_by_name() -> None:
    queue = Engines().queue
    assert [queue.priority(name) for name in ("", "interactive", "standard", "batch")] == [0, 0, 1, 2]
    with pytest.raises(RequestError, match="'urgent'; allowed: interactive, standard, batch"):
        queue.priority("urgent")


def test_every_key_of_the_file_becomes_a_tenant_with_its_limits() -> None:
    keys = ApiKeysFile.model_validate(
        {
            "keys": [
                {"name": "a", "sha256": key_sha256("A"), "priority": "batch", "requests_per_s": 0.1},
                {"name": "b", "sha256": key_sha256("B"), "ttft_deadline_s": 3.0, "tokens_per_s": 10.0},
                {"name": "c", "sha256": key_sha256("C"), "tokens_per_s": 10.0, "tokens_burst": 20.0},
            ]
        }
    )
    classes = ("interactive", "standard", "batch")
    a, b, c = (tenant_of(keys.by_sha256()[key_sha256(key)], classes, 30.0, 0.0) for key in "ABC")
    assert [(one.name, one.priority, one.ttft_deadline_s) for one in (a, b, c)] == [
        ("a", 2, 30.0),
        ("b", 1, 3.0),
        ("c", 1, 30.0),
    ]
    assert a.charge(10**6, 0.0) == 0.0, "one request at once though the rate is lower; tokens without limit"
    assert a.charge(1, 0.0) == pytest.approx(10.0, abs=1e-3)
    b.charge(600, 0.0)
    assert b.charge(600, 0.0) == pytest.approx(60.0, abs=1e-3), "a minute's tokens at once"
    c.charge(20, 0.0)
    assert c.charge(20, 0.0) == pytest.approx(2.0, abs=1e-3)


HAPPENINGS = st.lists(
    st.tuples(st.just("asks"), st.integers(0, 2), st.sampled_from([0.5, 2.0, 8.0]))
    | st.tuples(st.sampled_from(["leaves", "shuts", "opens", "passes", "turns"]), st.integers(0, 30), st.just(0.0)),
    max_size=60,
)


@given(HAPPENINGS)
def test_whatever_happens_everybody_is_let_go_or_told_by_its_deadline(happenings: list[tuple[str, int, float]]) -> None:
    async def test(loop: JumpingLoop) -> None:
        engines = Engines(each_s=0.2)
        tasks: list[tuple[asyncio.Task[None], float]] = []
        for what, i, deadline_s in happenings:
            if what == "asks":
                asked = engines.ask(tenant(str(i), i, deadline_s))
                tasks.append((loop.create_task(asked), loop.time() + deadline_s))
            elif what == "leaves" and tasks:
                tasks[i % len(tasks)][0].cancel()
            elif what == "shuts":
                engines.wait_s = 1.0
            elif what == "opens":
                engines.free()
            elif what == "passes":
                await asyncio.sleep(i / 20)
            else:
                await turns(i % 4)
            late = [task for task, by_s in tasks if not task.done() and loop.time() > by_s + 0.01]
            await turns(3)
            assert all(task.done() for task in late)
        await asyncio.sleep(9.0)
        assert all(task.done() for task, _ in tasks)
        for task, _ in tasks:
            if not task.cancelled() and task.exception() is not None:
                assert isinstance(task.exception(), RequestError)
        assert sum(engines.queue.lengths().values()) == 0
        assert not engines.queue._futures

    on_loop(test)
