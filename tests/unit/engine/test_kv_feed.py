"""A rank's trail of KV events, from a publisher that does as vLLM's does, over TCP."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
import zmq
import zmq.asyncio
from fakes.deployment import eventually

from baton.base.errors import ConfigError
from baton.engine.kv_feed import KvFeed
from baton.engine.kv_feeds import KvFeeds
from baton.policy.exact_prefixes import ExactPrefixes
from baton.policy.prompt import token_chain
from baton.policy.rank import RankId
from baton.recipe.recipe import Role
from baton.recipe.workers import Worker

RANK = RankId("p", 0)
SIZE = 4
END = (-1).to_bytes(8, "big", signed=True)
PROMPT = list(range(100, 100 + 16 * SIZE))
CHAIN = token_chain(b"", PROMPT, SIZE)
_clock = itertools.count(1)


class Publisher:
    """One process's side; XPUB, so that it knows when it is subscribed to."""

    def __init__(self, *, topic_in_replay: bool = True, first_hash: int = 0) -> None:
        self.context = zmq.asyncio.Context()
        self.topic_in_replay = topic_in_replay
        self.first_hash = first_hash
        self.seq = 0
        self.kept: list[tuple[int, bytes]] = []
        self.left_out: set[int] = set()
        """numbers that the next replay loses on its way"""
        self.asked: list[int] = []
        self.mute = False
        self.port = self.replay_port = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, port: int = 0, replay_port: int = 0) -> None:
        self.subscribed = asyncio.Event()
        self.pub, self.router = self.context.socket(zmq.XPUB), self.context.socket(zmq.ROUTER)
        self.port, self.replay_port = await _bound(self.pub, port), await _bound(self.router, replay_port)
        self._tasks = [asyncio.create_task(self._subscriptions()), asyncio.create_task(self._replay())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.pub.close(linger=0)
        self.router.close(linger=0)

    def event(self, first: int, last: int) -> dict[str, Any]:
        """The prompt's blocks from `first` to `last`, both included."""
        return {
            "type": "BlockStored",
            "block_hashes": [self.first_hash + i for i in range(first, last + 1)],
            "parent_block_hash": self.first_hash + first - 1 if first else None,
            "token_ids": PROMPT[first * SIZE : (last + 1) * SIZE],
            "block_size": SIZE,
            "lora_id": None,
            "medium": "GPU",
            "lora_name": None,
        }

    async def publish(self, *events: Any, lost: bool = False, raw: bytes | None = None) -> None:
        payload = msgspec.msgpack.encode([float(next(_clock)), events, 0]) if raw is None else raw
        seq, self.seq = self.seq, self.seq + 1
        self.kept.append((seq, payload))
        if not lost:
            await self.pub.send_multipart([b"kv", seq.to_bytes(8, "big"), payload])

    async def store(self, first: int, last: int, **how: Any) -> None:
        await self.publish(self.event(first, last), **how)

    async def _subscriptions(self) -> None:
        while True:
            if (await self.pub.recv())[:1] == b"\x01":
                self.subscribed.set()

    async def _replay(self) -> None:
        while True:
            client, empty, start = await self.router.recv_multipart()
            assert empty == b""
            self.asked.append(int.from_bytes(start, "big"))
            if self.mute:
                continue
            left_out, self.left_out = self.left_out, set()
            for seq, payload in self.kept:
                if seq >= self.asked[-1] and seq not in left_out:
                    await self.router.send_multipart([client, b"", *self._named(b"kv", seq), payload])
            await self.router.send_multipart([client, b"", *self._named(b"", -1), b""])

    def _named(self, topic: bytes, seq: int) -> list[bytes]:
        number = seq.to_bytes(8, "big", signed=True)
        return [topic, number] if self.topic_in_replay else [number]


async def _bound(socket: zmq.asyncio.Socket, port: int) -> int:
    if not port:
        return int(socket.bind_to_random_port("tcp://127.0.0.1"))
    async with asyncio.timeout(10):
        while True:  # the port of a socket that was closed is free a moment later
            try:
                socket.bind(f"tcp://127.0.0.1:{port}")
                return port
            except zmq.ZMQError:
                await asyncio.sleep(0.005)


class Following:
    """A feed that runs, and what it has made of the trail."""

    def __init__(self, publisher: Publisher, *, replay: bool, replay_s: float) -> None:
        self.index = ExactPrefixes(1000)
        self.index.follow(RANK, guesses=True)
        self.feed = KvFeed(
            RANK,
            f"tcp://127.0.0.1:{publisher.port}",
            f"tcp://127.0.0.1:{publisher.replay_port}" if replay else None,
            self.index,
            replay_s=replay_s,
        )

    @property
    def depth(self) -> int:
        return self.index.matched(CHAIN).get(RANK, 0)

    async def reaches(self, depth: int) -> None:
        await eventually(lambda: self.depth == depth, f"{depth} blocks known (now {self.depth}, {self.feed.counts})")


@contextlib.asynccontextmanager
async def following(
    publisher: Publisher, *, replay: bool = True, replay_s: float = 10.0, subscribed: bool = True
) -> AsyncIterator[Following]:
    follower, context = Following(publisher, replay=replay, replay_s=replay_s), zmq.asyncio.Context()
    task = asyncio.create_task(follower.feed.run(context))
    try:
        if subscribed:
            await asyncio.wait_for(publisher.subscribed.wait(), 10)
        yield follower
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])
        context.destroy(linger=0)


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    publisher = Publisher()
    await publisher.open()
    yield publisher
    await publisher.close()
    publisher.context.destroy(linger=0)


async def test_blocks_are_known_as_they_are_told(publisher: Publisher) -> None:
    async with following(publisher) as follower:
        await publisher.store(0, 1)
        await follower.reaches(2)
        await publisher.store(2, 5)
        await follower.reaches(6)
        await publisher.publish({"type": "BlockRemoved", "block_hashes": [5], "medium": "GPU"})
        await follower.reaches(5)
        await publisher.publish(["AllBlocksCleared"])
        await follower.reaches(0)
    assert follower.feed.counts.forgotten == 0


@pytest.mark.parametrize("topic_in_replay", [True, False])
async def test_a_gateway_that_starts_late_knows_the_cache(publisher: Publisher, topic_in_replay: bool) -> None:
    publisher.topic_in_replay = topic_in_replay
    for i in range(3):
        await publisher.store(i, i)
    async with following(publisher) as follower:
        await follower.reaches(3)
        await publisher.store(3, 3)
        await follower.reaches(4)
    assert publisher.asked[0] == 0
    assert follower.feed.counts.forgotten == 0


async def test_a_gap_is_filled_by_a_replay(publisher: Publisher) -> None:
    async with following(publisher) as follower:
        await publisher.store(0, 0)
        await follower.reaches(1)
        for i in (1, 2, 3):
            await publisher.store(i, i, lost=True)
        await publisher.store(4, 4)
        await follower.reaches(5)
    assert (follower.feed.counts.gaps, follower.feed.counts.forgotten) == (1, 0)
    assert follower.index.counts.unknown_parent == 0


async def test_a_replay_that_loses_batches_is_asked_for_the_rest(publisher: Publisher) -> None:
    for i in range(6):
        await publisher.store(i, i)
    publisher.left_out = {2, 4}
    async with following(publisher) as follower:
        await follower.reaches(6)
    assert publisher.asked[:2] == [0, 1]
    assert follower.feed.counts.forgotten == 0


async def test_what_cannot_be_replayed_any_more_makes_the_rank_forgotten(publisher: Publisher) -> None:
    async with following(publisher) as follower:
        await publisher.store(0, 1)
        await follower.reaches(2)
        await publisher.publish({"type": "BlockRemoved", "block_hashes": [1], "medium": "GPU"}, lost=True)
        publisher.kept.clear()
        await publisher.store(2, 2)
        await follower.reaches(0)
        await publisher.store(0, 0)
        await follower.reaches(1)
    assert follower.feed.counts.forgotten == 1
    assert follower.index.counts.unknown_parent == 1


async def test_a_batch_that_is_missing_from_the_replay_for_good_makes_the_rank_forgotten(publisher: Publisher) -> None:
    async with following(publisher) as follower:
        await publisher.store(0, 0)
        await follower.reaches(1)
        await publisher.store(1, 1, lost=True)
        del publisher.kept[1]
        await publisher.store(2, 2)
        await eventually(lambda: follower.feed.counts.forgotten == 1)
        await publisher.store(0, 0)
        await follower.reaches(1)


async def test_a_gap_without_a_replay_makes_the_rank_forgotten(publisher: Publisher) -> None:
    async with following(publisher, replay=False) as follower:
        await publisher.store(0, 1)
        await follower.reaches(2)
        await publisher.publish(lost=True)
        await publisher.store(0, 0)
        await follower.reaches(1)
    assert (follower.feed.counts.gaps, follower.feed.counts.forgotten, publisher.asked) == (1, 1, [])


async def test_numbers_that_begin_again_are_a_new_process(publisher: Publisher) -> None:
    async with following(publisher) as follower:
        for i in range(3):
            await publisher.store(i, i)
        await follower.reaches(3)
        publisher.seq, publisher.first_hash = 0, 500
        publisher.kept.clear()
        await publisher.store(0, 0)
        await follower.reaches(1)
        await publisher.store(1, 1)
        await follower.reaches(2)
    assert (follower.feed.counts.restarts, follower.feed.counts.forgotten) == (1, 1)


@pytest.mark.parametrize("already_published", [0, 1, 3])
async def test_a_rank_that_restarts_forgets_its_blocks(publisher: Publisher, already_published: int) -> None:
    async with following(publisher) as follower:
        for i in range(3):
            await publisher.store(i, i)
        await follower.reaches(3)
        await publisher.close()
        publisher.seq, publisher.first_hash = 0, 500
        publisher.kept.clear()
        for i in range(already_published):  # more or fewer than the old process had
            publisher.kept.append(
                (i, msgspec.msgpack.encode([float(next(_clock)), [publisher.event(5 * i, 5 * i)], 0]))
            )
        publisher.seq = already_published
        await publisher.open(publisher.port, publisher.replay_port)
        await follower.reaches(min(already_published, 1))
        await publisher.subscribed.wait()
        await publisher.store(0, 3)
        await follower.reaches(4)
    assert follower.feed.counts.forgotten == 1


async def test_a_connection_that_broke_costs_nothing_where_the_process_lives_on(publisher: Publisher) -> None:
    async with following(publisher) as follower:
        await publisher.store(0, 2)
        await follower.reaches(3)
        await publisher.close()
        missed = publisher.event(3, 3)
        publisher.kept.append((publisher.seq, msgspec.msgpack.encode([float(next(_clock)), [missed], 0])))
        publisher.seq += 1
        await publisher.open(publisher.port, publisher.replay_port)
        await follower.reaches(4)
    assert follower.feed.counts.forgotten == 0


async def test_without_a_replay_a_broken_connection_makes_the_rank_forgotten(publisher: Publisher) -> None:
    async with following(publisher, replay=False) as follower:
        await publisher.store(0, 2)
        await follower.reaches(3)
        await publisher.close()
        await follower.reaches(0)
        await publisher.open(publisher.port, publisher.replay_port)
        await publisher.subscribed.wait()
        await publisher.store(0, 1)
        await follower.reaches(2)


@pytest.mark.parametrize("junk", [b"", b"\xc1", msgspec.msgpack.encode([1.0, [{"type": "BlockStored"}], 0])])
async def test_a_message_that_cannot_be_read_makes_the_rank_forgotten(publisher: Publisher, junk: bytes) -> None:
    async with following(publisher) as follower:
        await publisher.store(0, 2)
        await follower.reaches(3)
        await publisher.publish(raw=junk)
        await follower.reaches(0)
        await publisher.store(0, 1)
        await follower.reaches(2)
    assert (follower.feed.counts.garbled, follower.feed.counts.forgotten) == (1, 1)
    assert publisher.asked.count(1) == 0, "the number was in order: nothing is missing"


async def test_a_message_of_wrong_frames_makes_the_rank_forgotten(publisher: Publisher) -> None:
    async with following(publisher, replay=False) as follower:
        await publisher.store(0, 2)
        await follower.reaches(3)
        await publisher.pub.send_multipart([b"kv", b"\x00"])
        await follower.reaches(0)
        assert follower.feed.counts.garbled == 1


async def test_a_replay_that_never_ends_is_given_up(publisher: Publisher) -> None:
    publisher.mute = True
    await publisher.store(0, 0)
    async with following(publisher, replay_s=0.05) as follower:
        await publisher.store(0, 1)
        await follower.reaches(2)
        await publisher.store(2, 2)
        await follower.reaches(3)
        await publisher.publish(lost=True)
        await publisher.store(0, 0)
        await follower.reaches(1)
    assert follower.feed.counts.forgotten == 1


async def test_what_a_replay_has_brought_is_not_told_twice(publisher: Publisher) -> None:
    for i in range(3):
        await publisher.store(i, i)
    async with following(publisher) as follower:
        await follower.reaches(3)
        for number, payload in publisher.kept:
            await publisher.pub.send_multipart([b"kv", number.to_bytes(8, "big"), payload])
        await publisher.publish({"type": "BlockRemoved", "block_hashes": [2, 1], "medium": "GPU"})
        await follower.reaches(1)
    assert (follower.feed.counts.restarts, follower.feed.counts.batches) == (0, 4)


async def test_the_engine_may_come_after_the_gateway() -> None:
    publisher, port = Publisher(), 0
    await publisher.open()
    port, replay_port = publisher.port, publisher.replay_port
    await publisher.close()
    async with following(publisher, subscribed=False) as follower:
        await publisher.open(port, replay_port)
        await publisher.store(0, 2)
        await follower.reaches(3)
    await publisher.close()
    publisher.context.destroy(linger=0)


async def test_every_rank_of_a_worker_is_followed_on_its_own_port() -> None:
    publishers = await _neighbours(2)
    first = publishers[0]
    workers = [
        Worker(
            name="p",
            role=Role.PREFILL,
            url="http://127.0.0.1:1",
            dp_ranks=(4, 5),
            kv_events_port=first.port,
            kv_replay_port=first.replay_port,
        ),
        Worker(name="d", role=Role.DECODE, url="http://127.0.0.1:2"),
    ]
    index = ExactPrefixes(1000)
    feeds = KvFeeds(workers, index)
    task = asyncio.create_task(feeds.run())
    try:
        await publishers[0].store(0, 0)
        await publishers[1].store(0, 2)
        await eventually(lambda: index.matched(CHAIN) == {RankId("p", 4): 1, RankId("p", 5): 3})
        told = feeds.explain()
        assert (told["block_size"], told["ranks"]["p/5"]["blocks"], list(told["ranks"])) == (SIZE, 3, ["p/4", "p/5"])
        index.stored(RankId("d", 0), CHAIN)
        assert index.matched(CHAIN)[RankId("d", 0)] == len(CHAIN), "who publishes nothing is guessed at"
    finally:
        task.cancel()
        await asyncio.wait([task])
        for publisher in publishers:
            await publisher.close()
            publisher.context.destroy(linger=0)


def test_a_deployment_without_events_cannot_be_exact() -> None:
    silent = Worker(name="p", role=Role.PREFILL, url="http://127.0.0.1:1")
    decode = Worker(name="d", role=Role.DECODE, url="http://127.0.0.1:2", kv_events_port=5557)
    with pytest.raises(ConfigError, match="kv_events_port"):
        KvFeeds([silent, decode], ExactPrefixes(10))


async def _neighbours(count: int) -> Sequence[Publisher]:
    """Publishers on ports that follow one another."""
    for _ in range(50):
        publishers = [Publisher() for _ in range(count)]
        opened: list[Publisher] = []
        try:
            for i, publisher in enumerate(publishers):
                async with asyncio.timeout(0.5):
                    ports = (publishers[0].port + i, publishers[0].replay_port + i) if i else (0, 0)
                    await publisher.open(*ports)
                opened.append(publisher)
            return publishers
        except TimeoutError:
            for publisher in opened:
                await publisher.close()
    raise AssertionError("no free ports beside one another")
