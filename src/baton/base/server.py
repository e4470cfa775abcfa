"""An HTTP/1.1 server for one handler; it knows bytes, limits and clocks, nothing of OpenAI, routing or engines.

The life of a connection
  1. llhttp parses what arrives. A whole request (body included, within limits) becomes a Request; all else a refusal.
  2. Requests of one connection are handled in order, one at a time, each in its own asyncio.Task. Bytes that come
     meanwhile wait unparsed; past `max_backlog_bytes` reading pauses, and a disconnect is seen only when writing fails.
  3. The handler answers through its Reply. What it writes within one turn of the loop leaves as one write.
  4. The reply ends and the next request begins, or the connection closes.

Invariants
  A client that leaves before its reply has ended cancels the handler's task, at once. Cancellation, not an event: it
  reaches every await below the handler, so an upstream leg that nobody thought of is cut too; `finally` gives things
  back. A client that shuts only its sending half has left as well. After `end()` the handler may finish undisturbed.
  A reply that can't be completed is cut (no last chunk, or fewer bytes than its length), so it never looks complete.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

import httptools

from baton.base.errors import BugError
from baton.base.http1 import Timer, header_key
from baton.base.reply import Reply, Request

Handler: TypeAlias = Callable[[Request, Reply], Awaitable[None]]
ErrorBody: TypeAlias = Callable[[int, str], bytes]
"""(status, message) -> the JSON body of an error that the server answers by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerLimits:
    """What one client may cost; every figure is per connection."""

    max_head_bytes: int = 64 * 1024
    max_body_bytes: int = 32 * 1024 * 1024
    max_backlog_bytes: int = 256 * 1024
    """pipelined bytes kept while a reply is under way"""
    max_unsent_bytes: int = 64 * 1024
    """`Reply.write` says False, and `drain` waits, above this"""
    idle_s: float = 75.0
    """between requests; above the 60 s of common load balancers, so that they close first"""
    receive_s: float = 30.0
    """from the first byte of a request to its last"""
    linger_s: float = 2.0
    """how long a refused client may go on sending; cutting the connection at once could lose the refusal"""


class HttpServer:
    """Serves one handler on one address; the loop is whichever runs `start`.

    handler      answers one request; if it raises, or returns without a reply, the client gets a 500 or a cut
                 connection, and the error goes to the loop's exception handler
    error_body   JSON for errors found here: 400, 408, 413, 431, 500, 501, 505
    """

    def __init__(self, handler: Handler, error_body: ErrorBody, limits: ServerLimits | None = None) -> None:
        self.handler = handler
        self.error_body = error_body
        self.limits = limits or ServerLimits()
        self.connections: set[_Connection] = set()
        self.stopping = False
        self._listener: asyncio.Server | None = None
        self._unflushed: list[_Connection] = []
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self, host: str, port: int, *, reuse_port: bool = False, backlog: int = 2048) -> None:
        """Listen; port 0 takes a free one (see `address`)."""
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), host, port, reuse_port=reuse_port or None, backlog=backlog
        )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that the server really listens on.

        Raises   BugError before `start`
        """
        if self._listener is None or not self._listener.sockets:
            raise BugError("the server doesn't listen")
        host, port = self._listener.sockets[0].getsockname()[:2]
        return host, port

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, close idle connections, give replies `grace_s` seconds to end, then cut them."""
        self.stopping = True
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.close_if_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._empty.wait()
        for connection in list(self.connections):
            connection.kill()
        await self._empty.wait()

    def remember(self, connection: "_Connection") -> None:
        """A connection began."""
        self.connections.add(connection)
        self._empty.clear()

    def flush_soon(self, connection: "_Connection") -> None:
        """Flush a connection at the end of this turn of the loop: one callback for all of them."""
        if not self._unflushed:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unflushed.append(connection)

    def _flush(self) -> None:
        unflushed, self._unflushed = self._unflushed, []
        for connection in unflushed:
            connection.flush()

    def forget(self, connection: "_Connection") -> None:
        """A connection is over, and so is its handler."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()


class _Refusal(Exception):
    """A request that the server answers by itself, and that ends the connection."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class _Connection(asyncio.Protocol):
    """One client's socket; see the module's text for its life."""

    _transport: asyncio.Transport

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.full = False
        self._max_head_bytes = server.limits.max_head_bytes
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._timer = Timer(self._loop, self._expired)
        self._queue: deque[tuple[Request, bool, bool] | _Refusal] = deque()
        self._backlog = bytearray()
        self._out: list[bytes] = []
        self._lost = self._lingering = False
        self._incoming = self._headers_done = self._continue_due = False
        self._out_bytes = self._quiet_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._reply: Reply | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def closing(self) -> bool:
        """True when the server stops: this reply is the connection's last."""
        return self.server.stopping

    # -- the transport calls -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        self.server.remember(self)
        if self.server.stopping:
            transport.close()
            return
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=self.server.limits.max_unsent_bytes)
        self._peer: str = transport.get_extra_info("peername")[0]
        self._timer.set(self._loop.time() + self.server.limits.idle_s)

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        if self._reply is None:
            self._feed(data)
        else:
            self._backlog += data
            if len(self._backlog) > self.server.limits.max_backlog_bytes and not self._transport.is_closing():
                self._transport.pause_reading()

    def eof_received(self) -> None:
        if self._reply is not None and not self._reply.ended:
            self._transport.abort()  # close() would first wait for a slow client to take what is buffered

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._timer.stop()
        self._queue.clear()
        self._out.clear()
        self.resume_writing()
        if self._task is None:
            self.server.forget(self)
        elif self._reply is not None and not self._reply.ended:
            self._task.cancel()

    # -- reading: bytes to requests ----------------------------------------------------------------------------

    def _feed(self, data: bytes | bytearray) -> None:
        limits = self.server.limits
        self._quiet_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._without_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, httptools.HttpParserInvalidURLError):
                cause = _Refusal(400, f"The request's target is not a URL: {self._url[:200]!r}.")
            if not isinstance(cause, _Refusal):
                raise
            self._queue.append(cause)
        except httptools.HttpParserError as error:
            self._queue.append(_Refusal(400, f"The request is not valid HTTP/1.1: {error}."))
        else:
            # llhttp gathers a header or trailer until it ends, without telling: count what it may be holding.
            if self._incoming and self._quiet_bytes > limits.max_head_bytes:
                self._queue.append(_Refusal(431, f"The request's head is over {limits.max_head_bytes} bytes."))
        if self._reply is None:
            self._next()

    def _without_upgrade(self, rest: bytes | bytearray) -> None:
        """RFC 9110 7.8 lets a server ignore Upgrade, but llhttp stops at it: begin again with a head without it."""
        if self._method == "CONNECT":
            self._queue.append(_Refusal(501, "CONNECT is not supported here."))
            self._next()
            return
        headers = "".join([f"{n}: {v}\r\n" for n, v in self._headers.items() if n not in ("upgrade", "connection")])
        head = f"{self._method} {self._url} HTTP/1.{self._http11:d}\r\n{headers}\r\n".encode("latin-1")
        self._parser = httptools.HttpRequestParser(self)
        self._feed(head + rest)

    def on_message_begin(self) -> None:
        self._incoming, self._headers_done = True, False
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._head_bytes = self._body_bytes = self._quiet_bytes = 0
        self._receive_due_s = self._loop.time() + self.server.limits.receive_s
        self._url = ""

    def on_url(self, url: bytes) -> None:
        self._url += url.decode("latin-1")
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._max_head_bytes:
            self._count_head(0)
        if self._headers_done:  # a trailer
            return
        key, text = header_key(name), value.decode("latin-1").strip()
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def _count_head(self, num_bytes: int) -> None:
        self._head_bytes += num_bytes
        if self._head_bytes > self.server.limits.max_head_bytes:
            raise _Refusal(431, f"The request's head is over {self.server.limits.max_head_bytes} bytes.")

    def on_headers_complete(self) -> None:
        self._method = self._parser.get_method().decode("latin-1")
        version = self._parser.get_http_version()
        self._http11 = version == "1.1"
        self._headers_done, self._quiet_bytes = True, 0
        if self._parser.should_upgrade():
            return
        if version not in ("1.1", "1.0"):
            raise _Refusal(505, f"HTTP/{version} is not supported here; use HTTP/1.1.")
        if self._http11 and "host" not in self._headers:
            raise _Refusal(400, "The request has no Host header.")
        self._count_body(int(self._headers.get("content-length", 0)))
        self._body_bytes = 0
        self._continue_due = self._http11 and self._headers.get("expect", "").lower() == "100-continue"

    def on_body(self, data: bytes) -> None:
        self._quiet_bytes = 0
        self._count_body(len(data))
        self._body.append(data)

    def _count_body(self, num_bytes: int) -> None:
        self._body_bytes += num_bytes
        if self._body_bytes > self.server.limits.max_body_bytes:
            raise _Refusal(413, f"The request's body is over {self.server.limits.max_body_bytes} bytes.")

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return
        target = self._url
        if not target.startswith("/") and target != "*":
            url = httptools.parse_url(target.encode("latin-1"))
            target = ((url.path or b"/") + (b"?" + url.query if url.query else b"")).decode("latin-1")
        path, _, query = target.partition("?")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(self._method, path, query, self._headers, body, self._peer)
        self._incoming = self._continue_due = False
        self._queue.append((request, self._http11, self._parser.should_keep_alive()))

    # -- handling: one request at a time -----------------------------------------------------------------------

    def _next(self) -> None:
        if not self._queue and self._backlog:
            data, self._backlog = self._backlog, bytearray()
            self._transport.resume_reading()
            self._feed(data)  # comes back here
            return
        if self._queue:
            item = self._queue.popleft()
            if isinstance(item, _Refusal):
                self._refuse(item)
            else:
                request, http11, keep_alive = item
                self._timer.clear()
                self._reply = Reply(self, request.method, http11, keep_alive)
                self._task = self._loop.create_task(self._serve(request, self._reply))
        elif self._incoming:
            self._timer.set(self._receive_due_s)
            if self._continue_due:
                self._continue_due = False
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif self.server.stopping:
            self._transport.close()
        else:
            self._timer.set(self._loop.time() + self.server.limits.idle_s)

    async def _serve(self, request: Request, reply: Reply) -> None:
        try:
            await self.server.handler(request, reply)
            if not reply.ended:
                raise BugError(f"the handler returned with its reply {'unfinished' if reply.started else 'not begun'}")
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._failed(request, reply, error)  # nobody cancelled this task: another's cancellation got out
        except Exception as error:  # noqa: BLE001 (a process edge: reported, and answered with a 500 or a cut)
            self._failed(request, reply, error)
        finally:
            self._served(reply)

    def _failed(self, request: Request, reply: Reply, error: BaseException) -> None:
        what = f"{request.method} {request.path} of {request.peer} failed in its handler"
        self._loop.call_exception_handler({"message": what, "exception": error, "protocol": self})
        if not reply.started:
            reply.send(500, {"content-type": "application/json"}, self.server.error_body(500, "Internal server error."))

    def _served(self, reply: Reply) -> None:
        if not reply.ended:
            reply.abort()
        self._reply = self._task = None
        if self._lost:
            self.server.forget(self)
        elif reply.closes:
            self._close()
        elif not self._transport.is_closing():
            self._receive_due_s = self._loop.time() + self.server.limits.receive_s
            self._next()

    def _refuse(self, refusal: _Refusal) -> None:
        reply = Reply(self, "", True, False)
        body = self.server.error_body(refusal.status, refusal.message)
        reply.send(refusal.status, {"content-type": "application/json"}, body)
        self._incoming = False
        self._lingering = True
        self._transport.write_eof()
        self._timer.set(self._loop.time() + self.server.limits.linger_s)

    def _expired(self) -> None:
        if self._incoming and not self._lingering:
            self._refuse(_Refusal(408, f"The request was not complete in {self.server.limits.receive_s} s."))
        else:
            self._transport.abort()

    # -- writing -----------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Queue bytes for this turn's one write; a turn that writes much writes at once, and may find itself full."""
        if self._lost:
            return
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes > self.server.limits.max_unsent_bytes:
            self.flush()
        elif len(self._out) == 1:
            self.server.flush_soon(self)

    def flush(self) -> None:
        """Hand what is queued to the transport."""
        if self._out and not self._transport.is_closing():
            self._transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
        self._out.clear()
        self._out_bytes = 0

    async def drain(self) -> None:
        """Return once the transport's buffer is below its limit."""
        self.flush()
        while self.full and not self._lost:
            self._waiter = self._loop.create_future()
            await self._waiter

    def _close(self) -> None:
        self._timer.set(self._loop.time() + self.server.limits.idle_s)  # for a client that never takes what is buffered
        self._transport.close()

    def close_if_idle(self) -> None:
        """Close unless a request is on its way in or being answered."""
        if self._reply is None and not self._incoming:
            self._close()

    def abort(self) -> None:
        """Cut the connection; a reply under way is cancelled when the loop reports the loss."""
        self._transport.abort()

    def kill(self) -> None:
        """Cut the connection and cancel its handler, wherever that is."""
        self._transport.abort()
        if self._task is not None:
            self._task.cancel()
