"""One rank's trail of KV events over ZeroMQ: each batch once, in order, or else the rank is forgotten.

vLLM publishes batches numbered from 0 (PUB), drops what a slow or late subscriber misses, and keeps the last ones for
replay (ROUTER). Its messages do not name the process, so this does: the trail is unbroken if the engine replays, byte
for byte, the last batch that was seen here. The time in a batch is part of its bytes, and no two processes agree on it.

    connected, first or again   catch up
    number as expected          tell the index
    number too high             catch up; what cannot be had again means that the rank is forgotten
    number too low              a replay has brought it already; if its time says otherwise, it is a new process's
    unreadable                  the rank is forgotten
    disconnected                without a replay nothing can be proved later: the rank is forgotten

Forgotten is safe: the index then knows too little of a rank until its cache turns over, never too much.

Every wait is bounded but those for news. What waits here is bounded by ZeroMQ's high-water marks; beyond them the
engine drops, and a gap follows.
Source: vLLM 0.11.0 to 0.32.0, distributed/kv_events.py (ZmqEventPublisher).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from baton.engine.kv_events import (
    BlockRemoved,
    BlockStored,
    EventsGarbled,
    KvEventBatch,
    KvEventDecoder,
    here,
    stored_blocks,
)
from baton.policy.exact_prefixes import ExactPrefixes
from baton.policy.rank import RankId

log = logging.getLogger("baton.engine.kv_feed")

_END = (-1).to_bytes(8, "big", signed=True)
_MAX_QUEUED = 10_000
"""Batches that may wait here; as many as vLLM keeps for replay by default (`buffer_steps`)."""
_MAX_MESSAGE_BYTES = 64 << 20
_HEARTBEAT_MS, _SILENT_MS = 5_000, 15_000
"""A host that vanished without a word is noticed, and the connection made anew."""
_RECONNECT_MS, _MAX_RECONNECT_MS = 200, 5_000
_TURN = 16
"""Batches after which others get a turn of the loop."""


@dataclass(slots=True)
class FeedCounts:
    """What became of one rank's trail: batches told, gaps and replays met, and how often the rank was forgotten."""

    batches: int = 0
    events: int = 0
    gaps: int = 0
    replays: int = 0
    restarts: int = 0
    garbled: int = 0
    forgotten: int = 0


class KvFeed:
    """Follows one rank; `run` until cancelled.

    endpoint          where it publishes
    replay_endpoint   where it replays; None = it does not
    replay_s          how long a replay may take, all of it
    """

    def __init__(
        self,
        rank: RankId,
        endpoint: str,
        replay_endpoint: str | None,
        index: ExactPrefixes,
        *,
        replay_s: float = 10.0,
    ) -> None:
        self.rank = rank
        self.counts = FeedCounts()
        self.decoder = KvEventDecoder()
        self._endpoint = endpoint
        self._replay_endpoint = replay_endpoint
        self._index = index
        self._replay_s = replay_s
        self._last: tuple[int, bytes] | None = None
        """number and bytes of the last batch told; None: nothing of the rank is known"""
        self._last_time_s = 0.0
        self._lock = asyncio.Lock()

    async def run(self, context: zmq.asyncio.Context) -> None:
        """Keep the index true of this rank, for ever."""
        news = self._socket(context, zmq.SUB)
        news.subscribe(b"")
        watch = news.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        try:
            news.connect(self._endpoint)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(watch, context))
                tasks.create_task(self._listen(news, context))
        finally:
            news.disable_monitor()
            watch.close(linger=0)
            news.close(linger=0)

    async def _watch(self, watch: zmq.asyncio.Socket, context: zmq.asyncio.Context) -> None:
        while True:
            event = await recv_monitor_message(watch)
            async with self._lock:
                if event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    await self._catch_up(context)
                elif self._replay_endpoint is None:
                    self._forget("its connection broke")

    async def _listen(self, news: zmq.asyncio.Socket, context: zmq.asyncio.Context) -> None:
        turn = 0
        while True:
            frames = await news.recv_multipart()
            async with self._lock:
                await self._arrived(frames, context)
            turn += 1
            if turn % _TURN == 0:
                await asyncio.sleep(0)  # what is there already is received without a wait

    async def _arrived(self, frames: list[bytes], context: zmq.asyncio.Context) -> None:
        """One published message: topic, number, payload."""
        if len(frames) != 3 or len(frames[1]) != 8:
            self.counts.garbled += 1
            self._forget(f"a message of {len(frames)} frames, expected topic, number and payload")
            return
        number, payload = int.from_bytes(frames[1], "big"), frames[2]
        if number < self._next and self._is_later(payload):
            self.counts.restarts += 1
            self._forget("its numbers began again: a new process")
        if number > self._next:
            self.counts.gaps += self._last is not None
            await self._catch_up(context)
            if number > self._next and self._last is not None:
                self._forget(f"batches {self._next} to {number - 1} are lost")
        if number >= self._next:
            self._tell(number, payload)

    @property
    def _next(self) -> int:
        return self._last[0] + 1 if self._last else 0

    def _is_later(self, payload: bytes) -> bool:
        try:
            return self.decoder.decode(payload).time_s > self._last_time_s
        except EventsGarbled:
            return True

    # -- replay ---------------------------------------------------------------------------------------------------

    async def _catch_up(self, context: zmq.asyncio.Context) -> None:
        """Prove that the trail is unbroken and take what is missing of it; else start again with all that is kept."""
        if self._replay_endpoint is None:
            return
        try:
            async with asyncio.timeout(self._replay_s):
                while not await self._replayed(context):
                    pass
        except TimeoutError:
            self._forget(f"{self._replay_endpoint} did not end a replay in {self._replay_s} s")

    async def _replayed(self, context: zmq.asyncio.Context) -> bool:
        """Ask for what follows the last batch, that one included; False = ask again.

        Every False is progress: what was known is forgotten, or more of it is known.
        """
        self.counts.replays += 1
        known = self._last
        start, proven = known[0] if known else 0, known is None
        async with contextlib.aclosing(self._replay(context, start)) as replay:
            async for number, payload in replay:
                if not proven:
                    if (number, payload) != known:
                        break
                    proven = True
                elif self._last is not None and number != self._next:  # the engine's queue to us was full
                    if self._last is not known:
                        return False
                    self._forget(f"batches {self._next} to {number - 1} are not replayed")
                    return True
                else:
                    self._tell(number, payload)
        if not proven:
            self.counts.restarts += 1
            self._forget("it does not know the last batch seen: a new process, or too long ago")
        return proven

    async def _replay(self, context: zmq.asyncio.Context, start: int) -> AsyncGenerator[tuple[int, bytes], None]:
        """Numbers and payloads of the batches kept from `start` on; up to 0.25 without their topics."""
        assert self._replay_endpoint is not None
        asker = self._socket(context, zmq.DEALER)
        try:
            asker.connect(self._replay_endpoint)
            await asker.send_multipart([b"", start.to_bytes(8, "big")])
            turn = 0
            while True:
                frames = await asker.recv_multipart()
                if len(frames) < 3 or len(frames[-2]) != 8:
                    continue
                if frames[-2] == _END:
                    return
                yield int.from_bytes(frames[-2], "big"), frames[-1]
                turn += 1
                if turn % _TURN == 0:
                    await asyncio.sleep(0)
        finally:
            asker.close(linger=0)

    # -- what is known --------------------------------------------------------------------------------------------

    def _tell(self, number: int, payload: bytes) -> None:
        """Pass a batch on to the index."""
        self._last = (number, payload)
        try:
            batch = self.decoder.decode(payload)
        except EventsGarbled as error:
            self.counts.garbled += 1
            self._forget(str(error))
            self._last = (number, payload)
            return
        self._last_time_s = batch.time_s
        self.counts.batches += 1
        self.counts.events += len(batch.events)
        _pass_on(self._index, self.rank, batch)

    def _forget(self, why: str) -> None:
        if self._last is not None:
            self.counts.forgotten += 1
            log.warning("what %s holds is forgotten: %s", self.rank, why)
        self._last = None
        self._index.told_cleared(self.rank)

    def _socket(self, context: zmq.asyncio.Context, kind: int) -> zmq.asyncio.Socket:
        socket = context.socket(kind)
        for option, value in (
            (zmq.RCVHWM, _MAX_QUEUED),
            (zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES),
            (zmq.HEARTBEAT_IVL, _HEARTBEAT_MS),
            (zmq.HEARTBEAT_TIMEOUT, _SILENT_MS),
            (zmq.RECONNECT_IVL, _RECONNECT_MS),
            (zmq.RECONNECT_IVL_MAX, _MAX_RECONNECT_MS),
            (zmq.LINGER, 0),
            (zmq.IPV6, 1),
        ):
            socket.setsockopt(option, value)
        return socket


def _pass_on(index: ExactPrefixes, rank: RankId, batch: KvEventBatch) -> None:
    for event in batch.events:
        if isinstance(event, BlockStored):
            if here(event) and (blocks := stored_blocks(event)) is not None:
                index.told_stored(rank, blocks)
        elif isinstance(event, BlockRemoved):
            if here(event):
                index.told_removed(rank, event.block_hashes, event.group_idx)
        else:
            index.told_cleared(rank)
