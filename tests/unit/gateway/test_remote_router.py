import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest
from fakes.deployment import eventually

from baton.base.errors import RequestError
from baton.engine.client import HttpClient
from baton.engine.vllm import Identity, VllmServer
from baton.gateway.door import Door, Entry
from baton.gateway.keys import Keys
from baton.gateway.link import Link
from baton.gateway.merged_metrics import merged
from baton.gateway.metrics import GatewayMetrics
from baton.gateway.pool import Pool
from baton.gateway.queue import AdmissionQueue
from baton.gateway.remote_router import RemoteRouter, RouterLost
from baton.gateway.router_service import RouterService
from baton.gateway.routes import Routes
from baton.policy.admission import Admission
from baton.policy.prefix_index import PrefixIndex
from baton.policy.rank import Pair
from baton.policy.routing import Ask, Router
from baton.policy.step_times import StepTimes
from baton.recipe.api_keys import key_sha256
from baton.recipe.recipe import Role
from baton.recipe.workers import Worker

ASK = Ask(num_prompt_tokens=1000, chain=[1, 2**64 - 1, 3], tokens_per_block=128.0, session="s")

ENTRY = Entry(key_sha256("A"), 10, 1)
IDENTITY = Identity(engine_version="1", model="m", weights="", attention_backend="", block_size="", kv_cache_dtype="")


@dataclass
class Gate:
    """What the engines' least wait is taken to be."""

    wait_s: float = 0.0


@dataclass
class Setup:
    router: Router
    pool: Pool
    service: RouterService
    front: RemoteRouter
    front_pool: Pool
    listener: asyncio.Server
    door: Door
    gate: Gate

    def open(self) -> None:
        self.gate.wait_s = 0.0
        self.door.queue.wake()

    @property
    def num_waiting(self) -> int:
        return sum(self.door.queue.lengths().values())

    def loads(self) -> int:
        return sum(self.router.load(rank) for rank in self.pool.ranks)

    def verify_all(self) -> None:
        for name in self.pool.workers:
            self.pool.found(name, IDENTITY)
        for pair in self.pool.pairs:
            self.pool.judge(pair, self.pool.generations(pair), "")


def servers(client: HttpClient) -> list[VllmServer]:
    roles = ((Role.PREFILL, "p"), (Role.DECODE, "d"))
    return [
        VllmServer(client, Worker(name=f"{name}{i}", role=role, url=f"http://127.0.0.1:{i + 1}", dp_ranks=(0, 1)))
        for role, name in roles
        for i in range(2)
    ]


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    client = HttpClient()
    router = Router(index=PrefixIndex(1000), times=StepTimes())
    pool = Pool(servers(client), router)
    metrics = GatewayMetrics()
    gate = Gate()
    admission = Admission(max_queued=2, hold_s=0.5)
    queue = AdmissionQueue(admission, lambda _: gate.wait_s, metrics)
    keys = tmp_path / "keys.yaml"
    keys.write_text(
        f'keys:\n  - {{name: a, sha256: "{key_sha256("A")}"}}\n'
        f'  - {{name: b, sha256: "{key_sha256("B")}", tokens_per_s: 1, tokens_burst: 100}}\n',
        encoding="utf-8",
    )
    door = Door(queue, Keys(keys, admission.classes, 30.0, 0.0))
    service = RouterService(router, pool, door, Routes(), lambda: b"# TYPE baton_pairs gauge\nbaton_pairs 16.0\n")
    listener = await service.start(str(tmp_path / "router"))
    front = RemoteRouter(str(tmp_path / "router"))
    front_pool = Pool(servers(client), front)
    await front.connect(front_pool.ranks, state_changed=front_pool.mirror, metrics=lambda: b"# TYPE a counter\na 2.0\n")
    yield Setup(router, pool, service, front, front_pool, listener, door, gate)
    front.close()
    listener.close()
    client.close()


async def test_a_front_knows_which_pairs_may_serve(setup: Setup) -> None:
    assert setup.front_pool.verified == ()
    assert "waiting for p0" in setup.front_pool.not_ready_reason()
    setup.verify_all()
    await eventually(lambda: len(setup.front_pool.verified) == 16)
    setup.pool.lost("p0", "connection refused")
    await eventually(lambda: len(setup.front_pool.verified) == 8)
    assert setup.front_pool.workers["p0"].reason == "connection refused"


async def test_a_reservation_is_the_routers_own_decision(setup: Setup) -> None:
    assert await setup.front.reserve(ASK, monotonic()) is None, "no pair may serve yet"
    setup.verify_all()
    first, second = [await setup.front.reserve(ASK, monotonic(), (), name) for name in "ab"]
    assert first is not None
    assert second is not None
    assert setup.router.load(first.pair.prefill) >= 1
    assert setup.loads() == 4
    assert first.decision.num_prompt_tokens == 1000
    assert (first.decision.runner_up is None) == (first.decision.runner_up_s == 0)
    assert isinstance(first.decision.pair, Pair)
    assert setup.router.index.matched(ASK.chain) == {first.pair.prefill: 3, second.pair.prefill: 3}, (
        "the chain got there"
    )
    for place, reservation in enumerate((first, second)):
        setup.front.prefilled(reservation, monotonic(), 1000, 0)
        setup.front.decoding(reservation, monotonic())
        setup.front.release(reservation, monotonic(), 10, place == 0)
    await eventually(lambda: setup.loads() == 0)
    assert b'"request_id":"b"' in await setup.front.ask("/debug/routes")


async def test_workers_that_failed_are_avoided(setup: Setup) -> None:
    setup.verify_all()
    found = [await setup.front.reserve(ASK, monotonic(), ("p0", "d1")) for _ in range(4)]
    assert {(one.pair.prefill.worker, one.pair.decode.worker) for one in found if one} == {("p1", "d0")}


async def test_a_reservation_that_nobody_waits_for_any_more_is_given_back(setup: Setup) -> None:
    setup.verify_all()
    asked = asyncio.create_task(setup.front.reserve(ASK, monotonic()))
    await asyncio.sleep(0)
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asked
    assert await setup.front.reserve(ASK, monotonic()) is not None
    await eventually(lambda: setup.loads() == 2)


async def test_what_a_front_held_is_given_back_when_it_is_gone(setup: Setup) -> None:
    setup.verify_all()
    await setup.front.reserve(ASK, monotonic())
    assert setup.loads() == 2
    setup.front.close()
    await eventually(lambda: setup.loads() == 0)
    with pytest.raises(RouterLost):
        await setup.front.watch()
    with pytest.raises(RouterLost):
        await setup.front.reserve(ASK, monotonic())


async def test_a_request_waits_at_the_routers_door_for_its_turn(setup: Setup) -> None:
    setup.verify_all()
    setup.gate.wait_s = 9.0
    asked = asyncio.create_task(setup.front.reserve(ASK, monotonic(), (), "r", ENTRY))
    await eventually(lambda: setup.num_waiting == 1)
    assert setup.loads() == 0
    setup.open()
    reservation = await asked
    assert reservation is not None
    assert reservation.waited_s > 0
    assert setup.loads() == 2
    assert await setup.front.enter(ENTRY) is False, "the door is open"


async def test_what_the_door_says_no_to_is_refused_at_the_front(setup: Setup) -> None:
    setup.verify_all()
    entry = Entry(key_sha256("B"), 100, 1)
    assert await setup.front.reserve(ASK, monotonic(), (), "r", entry) is not None
    for asking in (setup.front.reserve(ASK, monotonic(), (), "s", entry), setup.front.enter(entry)):
        with pytest.raises(RequestError, match="The API key b is over its limit") as refused:
            await asking
        assert (refused.value.status, refused.value.retry_after_s) == (429, pytest.approx(100, rel=0.1))
    setup.front.left(entry, 0)
    await eventually(lambda: setup.door.keys.tenant(entry.key).charge(100, monotonic()) == 0, "its tokens are back")
    with pytest.raises(RequestError, match="not valid any more"):
        await setup.front.enter(Entry("f" * 64, 1, 1))


async def test_who_leaves_while_it_waits_is_out_of_the_queue(setup: Setup) -> None:
    setup.verify_all()
    setup.gate.wait_s = 9.0
    asked = [
        asyncio.create_task(setup.front.reserve(ASK, monotonic(), (), "r", ENTRY)),
        asyncio.create_task(setup.front.enter(ENTRY)),
    ]
    await eventually(lambda: setup.num_waiting == 2)
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    await eventually(lambda: setup.num_waiting == 0)
    setup.gate.wait_s = 9.0
    waiting = asyncio.create_task(setup.front.reserve(ASK, monotonic(), (), "r", ENTRY))
    await eventually(lambda: setup.num_waiting == 1)
    setup.front.close()
    await eventually(lambda: setup.num_waiting == 0, "the link is gone, and whoever waited behind it")
    with pytest.raises(RouterLost):
        await waiting
    setup.open()
    assert setup.loads() == 0


async def test_a_worker_that_one_front_has_lost_is_lost_to_all(setup: Setup) -> None:
    setup.verify_all()
    await eventually(lambda: len(setup.front_pool.verified) == 16)
    setup.front_pool.lost("p0", "connection refused")
    await eventually(lambda: len(setup.pool.verified) == 8)
    assert all(pair.prefill.worker == "p1" for pair in setup.pool.verified)


async def test_metrics_of_all_processes_come_together(setup: Setup) -> None:
    text = (await setup.front.ask("/metrics")).decode()
    assert "baton_pairs 16.0" in text
    assert "a_total 2.0" in text


def test_what_fronts_count_is_added_and_what_the_router_knows_is_not() -> None:
    router = b"# TYPE baton_pairs gauge\nbaton_pairs 4.0\n# TYPE baton_x counter\nbaton_x_total 0.0\n"
    fronts = [
        b"# TYPE baton_pairs gauge\nbaton_pairs 4.0\n# TYPE baton_x counter\nbaton_x_total 3.0\n"
        b'# TYPE h histogram\nh_bucket{le="1.0"} 1.0\nh_bucket{le="+Inf"} 2.0\nh_count 2.0\nh_sum 5.0\n',
        b'# TYPE h histogram\nh_bucket{le="1.0"} 0.0\nh_bucket{le="+Inf"} 1.0\nh_count 1.0\nh_sum 9.0\n'
        b'# TYPE r counter\nr_total{path="/a"} 1.0\n',
    ]
    lines = merged(router, fronts).decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "baton_pairs 4.0", "baton_x_total 3.0", 'h_bucket{le="1.0"} 1.0', 'h_bucket{le="+Inf"} 3.0', "h_count 3.0",
        "h_sum 14.0", 'r_total{path="/a"} 1.0',
    ]  # fmt: skip


@pytest.mark.parametrize("cut", [1, 3, 7, 1000])
async def test_messages_arrive_whole_and_in_order_however_they_are_cut(cut: int) -> None:
    got: list[list[object]] = []
    link = Link(lambda _, message: got.append(message), lambda _: None)
    written = bytearray()

    class Transport(asyncio.Transport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            written.extend(data)

        def is_closing(self) -> bool:
            return False

    link.connection_made(Transport())
    sent: list[list[object]] = [["late", 1], ["a", b"x" * 300], ["b", None, 2.5]]
    link.send(sent[0], within_s=60)
    for message in sent[1:]:
        link.send(message)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for begin in range(0, len(written), cut):
        link.data_received(bytes(written[begin : begin + cut]))
    assert got == sent, "what may wait leaves with what may not"
