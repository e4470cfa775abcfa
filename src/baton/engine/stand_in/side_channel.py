"""How KV goes from one stand-in to another: where vLLM has NIXL, they have a small server a rank, and HTTP.

POST /kv         {engine_id, blocks}: the contents of blocks, whoever's they are by now; 409 from another engine
POST /notices    {request_id}: fetched, or never to be fetched
POST /heartbeats {request_ids}: still wanted
All in msgpack. As with NIXL, whoever reads isn't asked what for, and a block that is someone else's by now is read too.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import msgspec

from baton.base.errors import BatonError, WorkerError
from baton.base.reply import Reply, Request
from baton.base.server import HttpServer
from baton.engine.client import HttpClient
from baton.engine.origin import Origin
from baton.engine.stand_in.leases import Leases

_DEADLINE_S = 5.0


class Offering(Protocol):
    """A rank that others read from."""

    engine_id: str
    leases: Leases
    layout: str

    def contents_of(self, blocks: list[int]) -> list[int]:
        """The contents of blocks."""


class SideChannel:
    """One rank's end: a server for those that read from it, and a client of theirs."""

    def __init__(self, rank: Offering, client: HttpClient) -> None:
        self._rank = rank
        self._client = client
        self._server = HttpServer(self._handle, lambda _, message: message.encode())

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, which is a free one for 0."""
        await self._server.start(host, port)
        return self._server.address[1]

    async def stop(self) -> None:
        """Close everything."""
        await self._server.stop(0)

    async def fetch(self, params: dict[str, Any], blocks: list[int]) -> list[int]:
        """The contents of another engine's blocks.

        params   of a hand-off, as vLLM's NIXL connector makes them
        Raises   EngineError, WorkerError: it can't be reached, is another engine, or lays its KV out otherwise
        """
        asked = {"engine_id": params["remote_engine_id"], "layout": self._rank.layout, "blocks": blocks}
        raw = await self._post(params, "/kv", asked)
        contents: list[int] = msgspec.msgpack.decode(raw, type=list[int])
        return contents

    async def notify(self, params: dict[str, Any]) -> bool:
        """Tell that this KV isn't needed any more; False when nobody could be told."""
        return await self._tell(params, "/notices", {"request_id": params["remote_request_id"]})

    async def beat(self, params: dict[str, Any], request_ids: list[str]) -> bool:
        """Tell that this KV is still wanted; False when nobody could be told."""
        return await self._tell(params, "/heartbeats", {"request_ids": request_ids})

    async def _tell(self, params: dict[str, Any], path: str, value: dict[str, Any]) -> bool:
        try:
            await self._post(params, path, {"engine_id": params["remote_engine_id"], **value})
        except (BatonError, KeyError):
            return False
        return True

    async def _post(self, params: dict[str, Any], path: str, value: dict[str, Any]) -> bytes:
        origin = Origin.parse(f"http://{params['remote_host']}:{params['remote_port']}")
        deadline_s = asyncio.get_running_loop().time() + _DEADLINE_S
        response = await self._client.send(
            origin, "POST", path, {}, msgspec.msgpack.encode(value), deadline_s=deadline_s
        )
        raw = await response.read(1 << 26)
        if response.status != 200:
            raise WorkerError(f"{origin} answered {response.status} to POST {path}: {raw[:200]!r}")
        return raw

    async def _handle(self, request: Request, reply: Reply) -> None:
        asked = msgspec.msgpack.decode(request.body)
        if asked["engine_id"] != self._rank.engine_id:
            reply.send(409, {}, f"this is engine {self._rank.engine_id}".encode())
            return
        answer: Any = None
        match request.path:
            case "/kv" if asked["layout"] != self._rank.layout:
                reply.send(409, {}, f"KV is laid out as {self._rank.layout} here".encode())
                return
            case "/kv":
                answer = self._rank.contents_of(asked["blocks"])
            case "/notices":
                self._rank.leases.notify(asked["request_id"])
            case "/heartbeats":
                for request_id in asked["request_ids"]:
                    self._rank.leases.extend(request_id)
        reply.send(200, {}, msgspec.msgpack.encode(answer))
