"""An HTTP/1.1 client for engines: one keep-alive pool per origin, bytes handed on in the turn of the loop they arrive.

It knows origins, deadlines and framing; nothing of OpenAI, vLLM or which leg of a request it carries.

The life of an exchange
  1. `send` takes the most recently used idle connection of the origin, or connects, and writes head and body at once.
  2. The response's head arrives: `send` returns a Response. Reading pauses if much body comes before anyone takes it.
  3. `read` gathers the body; `pipe` passes each arrival to a sink without waking a task; `chunks` iterates.
  4. A response that ended well gives its connection back to the pool. Any other end (an error, a cancelled task,
     `close`, leaving `with`) closes the connection: the engine sees the disconnect, and nothing half-read is reused.

Invariants
  A body is complete only when its length or its last chunk says so. A response that has neither is refused: where it
  ends can't be told from where it broke.
  A request is sent a second time in one case only: a reused connection closed before the first byte of its response,
  which is how an engine that closes idle connections looks from here.
"""

import asyncio
import socket
from collections.abc import Mapping
from typing import cast

import httptools

from baton.base.errors import BugError
from baton.base.http1 import Timer, encode_head, header_key
from baton.engine.errors import EngineDisconnected, EngineError, EngineGarbled, EngineTimeout, EngineUnreachable
from baton.engine.origin import Origin
from baton.engine.response import Response


class HttpClient:
    """Requests to engines over kept connections, from one event loop.

    connect_timeout_s   name lookup and TCP handshake
    idle_s              a kept connection is closed after this; below the engine's own (vLLM's default is 5 s), so that
                        the engine seldom closes one just as a request is put on it
    max_head_bytes      of a response
    """

    def __init__(self, *, connect_timeout_s: float = 2.0, idle_s: float = 4.0, max_head_bytes: int = 64 * 1024) -> None:
        self.connect_timeout_s = connect_timeout_s
        self.idle_s = idle_s
        self.max_head_bytes = max_head_bytes
        self.connections: set[_Connection] = set()
        self._closed = False
        self._idle: dict[Origin, list[_Connection]] = {}

    async def send(
        self,
        origin: Origin,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        deadline_s: float | None = None,
    ) -> Response:
        """Send one request and wait for the response's head.

        headers      without framing or `host`, which are written here
        deadline_s   of the whole exchange, body included, on `loop.time()`'s clock; None = no limit
        Raises       EngineUnreachable, EngineDisconnected, EngineTimeout, EngineGarbled; BugError: HEAD, bad headers
        """
        if method == "HEAD":
            raise BugError("HEAD is not supported: its response announces a body that doesn't come")
        framing = f"host: {origin}\r\n"
        if body or method not in ("GET", "DELETE", "OPTIONS"):
            framing += f"content-length: {len(body)}\r\n"
        message = encode_head(f"{method} {path} HTTP/1.1", headers, framing) + body
        response = await self.start(origin, message, f"{method} {path}", deadline_s)
        try:
            try:
                await response.head()
            except EngineDisconnected:
                if not response.unheard:
                    raise
                response = await self.start(origin, message, f"{method} {path}", deadline_s, fresh=True)
                await response.head()
        except BaseException:
            response.close()
            raise
        return response

    async def start(
        self, origin: Origin, message: bytes, doing: str, deadline_s: float | None, *, fresh: bool = False
    ) -> Response:
        """Write one encoded request, head and body; on return the engine may have seen it, and nothing has come back.

        Without a wait where a kept connection is free. The caller waits for what it needs of the response, and closes
        it; a response left `unheard` by an EngineDisconnected may be started again with `fresh`, on a new connection.
        Raises   EngineUnreachable, EngineTimeout, EngineDisconnected: then nothing was sent
        """
        if self._closed:
            raise BugError(f"{doing} to {origin} on a closed client")
        connection = None if fresh else self._take(origin)
        if connection is not None:
            return connection.start(message, doing, deadline_s, reused=True)
        connection = await self._connect(origin, doing, deadline_s)
        if self._closed:
            connection.drop()
            raise EngineDisconnected(origin, f"connecting for {doing}", "the client was closed here")
        return connection.start(message, doing, deadline_s, reused=False)

    def num_idle(self, origin: Origin) -> int:
        """Kept connections that carry no exchange."""
        return len(self._idle.get(origin, ()))

    def close(self) -> None:
        """Close every connection; exchanges under way fail with EngineDisconnected."""
        self._closed = True
        for connection in list(self.connections):
            connection.drop()

    def _take(self, origin: Origin) -> "_Connection | None":
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable():
                return connection
        return None

    async def _connect(self, origin: Origin, doing: str, deadline_s: float | None) -> "_Connection":
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + self.connect_timeout_s
        try:
            async with asyncio.timeout_at(give_up_s if deadline_s is None else min(give_up_s, deadline_s)):
                _, connection = await loop.create_connection(lambda: _Connection(self, origin), *origin)
        except TimeoutError as error:
            if deadline_s is not None and deadline_s <= give_up_s:
                raise EngineTimeout(origin, f"connecting for {doing}", "the deadline passed") from error
            why = f"no connection in {self.connect_timeout_s} s"
            raise EngineUnreachable(origin, f"connecting for {doing}", why) from error
        except OSError as error:
            raise EngineUnreachable(origin, f"connecting for {doing}", str(error)) from error
        return connection

    # -- the connections call ----------------------------------------------------------------------------------

    def keep(self, connection: "_Connection") -> None:
        """An idle connection, ready for another exchange."""
        self._idle.setdefault(connection.origin, []).append(connection)

    def forget(self, connection: "_Connection") -> None:
        """A connection is over."""
        self.connections.discard(connection)
        idle = self._idle.get(connection.origin)
        if idle and connection in idle:
            idle.remove(connection)


class _Connection(asyncio.Protocol):
    """One socket to one engine, carrying one exchange at a time."""

    _transport: asyncio.Transport

    def __init__(self, client: HttpClient, origin: Origin) -> None:
        self.origin = origin
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._timer = Timer(self._loop, self._expired)
        self._response: Response | None = None
        self._body: list[bytes] = []
        self._headers: dict[str, str] = {}
        self._head_bytes = self._quiet_bytes = 0
        self._ended = self._keep_alive = self._paused = False

    def start(self, message: bytes, doing: str, deadline_s: float | None, *, reused: bool) -> Response:
        """Write a request whose response will come here."""
        self._response = response = Response(self.origin, doing, self)
        response.unheard = reused
        self._ended = False
        if deadline_s is None:
            self._timer.clear()
        else:
            self._timer.set(deadline_s)
        self._transport.write(message)
        return response

    def usable(self) -> bool:
        """False once the engine's goodbye is known, even before the loop reports the loss."""
        return not self._transport.is_closing()

    def drop(self) -> None:
        """Close now; an exchange under way fails with EngineDisconnected."""
        self._transport.abort()
        if self._response is not None:
            self._response.unheard = False
        self._over(EngineDisconnected, "the connection was closed here")

    def pause(self) -> None:
        """Stop reading."""
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused and not self._transport.is_closing():
            self._transport.resume_reading()
        self._paused = False

    # -- the transport calls -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):  # Linux: an engine's host that vanished is noticed in 10 + 3 * 5 s
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        self._client.connections.add(self)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:  # an engine may say goodbye (408), never more, on a connection with no request
            self._transport.abort()
            return
        response.unheard = False
        self._quiet_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(EngineGarbled, "a switch of protocols that nobody asked for")
            return
        except httptools.HttpParserError as error:
            self._fail(EngineGarbled, str(error.__context__ or error))
            return
        if self._body:
            self._quiet_bytes = 0
            body, self._body = self._body, []
            response.arrived(body)
        elif self._quiet_bytes > self._client.max_head_bytes:
            self._fail(EngineGarbled, f"a head over {self._client.max_head_bytes} bytes")
            return
        if self._ended:
            self._finish(response)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over(EngineDisconnected, f"the engine closed the connection{f' ({exc})' if exc else ''}")

    # -- the parser calls --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._ended:
            raise ValueError("bytes after the end of the response")
        self._headers = {}
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._client.max_head_bytes:
            raise ValueError(f"a head over {self._client.max_head_bytes} bytes")
        key, text = header_key(name), value.decode("latin-1").strip()
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        response = self._response
        if status < 200 or response is None:
            return  # 1xx: the real head follows
        if (
            status not in (204, 304)
            and "content-length" not in self._headers
            and "chunked" not in self._headers.get("transfer-encoding", "")
        ):
            raise ValueError("a response with neither a length nor chunks, whose end can't be known")
        self._quiet_bytes = 0
        response.begin(status, self._headers)
        self._headers = {}  # trailers go nowhere

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:
            self._ended = True
            self._keep_alive = self._parser.should_keep_alive()

    # -- ends --------------------------------------------------------------------------------------------------

    def _finish(self, response: Response) -> None:
        self._response = None
        # Bytes still unsent mean that the engine answered before it had the request: what follows would be out of step.
        if self._keep_alive and not self._transport.is_closing() and not self._transport.get_write_buffer_size():
            self.resume()
            self._timer.set(self._loop.time() + self._client.idle_s)
            self._client.keep(self)
        else:
            self._transport.close()
        response.finish()

    def _fail(self, kind: type[EngineError], why: str) -> None:
        self._transport.abort()
        self._over(kind, why)

    def _over(self, kind: type[EngineError], why: str) -> None:
        self._timer.stop()
        self._client.forget(self)
        response, self._response = self._response, None
        if response is not None:
            response.fail(kind, why)

    def _expired(self) -> None:
        self._fail(EngineTimeout, "the deadline passed")
