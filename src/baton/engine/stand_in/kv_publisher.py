"""A rank's KV events over ZeroMQ, in the encoding of the release, with a replay of what was published lately.

A message is topic, sequence number (8 bytes, big-endian), and msgpack of [time, events, rank]. Up to 0.23 an event is
an array behind its name; since then a map. A client of the replay sends a number and gets each batch from there on,
then one numbered -1; before 0.26 without their topics.
Source: vLLM 0.11.0 to 0.32.0, distributed/kv_events.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from baton.base.errors import ConfigError
from baton.engine.stand_in.block_pool import AllCleared, BlockRemoved, BlocksStored
from baton.engine.stand_in.config import KvEventsPorts
from baton.engine.stand_in.release import Release

Event = BlocksStored | BlockRemoved | AllCleared


class KvPublisher:
    """Publishes for one rank.

    number   of the rank: it is added to fixed ports
    Raises   ConfigError when a port is taken
    """

    def __init__(self, ports: KvEventsPorts, number: int, release: Release, block_size: int) -> None:
        self._topic = ports.topic.encode()
        self._number = number
        self._release = release
        self._block_size = block_size
        self._seq = 0
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=ports.buffer_steps)
        self._context = zmq.Context()
        self._replay: Any = None
        self._replay_task: asyncio.Task[None] | None = None
        try:
            self._socket = self._context.socket(zmq.PUB)
            self._socket.set_hwm(ports.hwm)
            self.port = _bound(self._socket, ports.port and ports.port + number)
            self.replay_port = 0
            if ports.replay_port is not None:
                self._replay = zmq.asyncio.Context(self._context).socket(zmq.ROUTER)
                self.replay_port = _bound(self._replay, ports.replay_port and ports.replay_port + number)
                self._replay_task = asyncio.get_running_loop().create_task(self._answer())
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"KV events cannot be published on port {ports.port + number}: {error}") from error

    def publish(self, events: Sequence[Event]) -> None:
        """One batch; nothing for no events."""
        if not events:
            return
        encoded = [self._map(event) if self._release.kv_events_are_maps else self._array(event) for event in events]
        payload = msgspec.msgpack.encode([time.time(), encoded, self._number])
        seq, self._seq = self._seq, self._seq + 1
        self._kept.append((seq, payload))
        self._socket.send_multipart([self._topic, seq.to_bytes(8, "big"), payload])

    def close(self) -> None:
        """Close the sockets, as the end of a process does."""
        if self._replay_task is not None:
            self._replay_task.cancel()
        if self._replay is not None:  # the context's end would wait for it for ever
            self._replay.close(linger=0)
        self._context.destroy(linger=0)

    async def _answer(self) -> None:
        with contextlib.suppress(zmq.ZMQError):
            while True:
                client, *frames = await self._replay.recv_multipart()
                start = int.from_bytes(frames[-1], "big")
                for seq, payload in [kept for kept in self._kept if kept[0] >= start]:
                    await self._replay.send_multipart([client, b"", *self._named(self._topic, seq), payload])
                await self._replay.send_multipart([client, b"", *self._named(b"", -1), b""])

    def _named(self, topic: bytes, seq: int) -> list[bytes]:
        """A replayed batch's frames before its payload."""
        number = seq.to_bytes(8, "big", signed=True)
        return [topic, number] if self._release.replays_topic else [number]

    def _map(self, event: Event) -> dict[str, Any]:
        match event:
            case BlocksStored():
                return {
                    "type": "BlockStored",
                    "block_hashes": event.hashes,
                    "parent_block_hash": event.parent,
                    "token_ids": event.token_ids,
                    "block_size": self._block_size,
                    "lora_id": None,
                    "medium": "GPU",
                    "lora_name": None,
                    "extra_keys": event.extra_keys,
                    "group_idx": 0,
                    "kv_cache_spec_kind": "full_attention",
                }
            case BlockRemoved():
                return {"type": "BlockRemoved", "block_hashes": [event.hash], "medium": "GPU", "group_idx": 0}
            case AllCleared():
                return {"type": "AllBlocksCleared"}

    def _array(self, event: Event) -> list[Any]:
        match event:
            case BlocksStored():
                stored = ["BlockStored", event.hashes, event.parent, event.token_ids, self._block_size, None, "GPU"]
                more: dict[str, Any] = {"lora_name": None, "extra_keys": event.extra_keys, "group_idx": 0}
                more |= {"kv_cache_spec_kind": "full_attention", "kv_cache_spec_sliding_window": None}
                return stored + [value for field, value in more.items() if self._release.has_in_stored(field)]
            case BlockRemoved():
                group = [0] if self._release.has_in_stored("group_idx") else []
                return ["BlockRemoved", [event.hash], "GPU", *group]
            case AllCleared():
                return ["AllBlocksCleared"]


def _bound(socket: Any, port: int) -> int:
    if port == 0:
        return int(socket.bind_to_random_port("tcp://127.0.0.1"))
    socket.bind(f"tcp://*:{port}")
    return port
