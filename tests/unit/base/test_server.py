"""The gateway's HTTP server, over real sockets."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from baton.base.reply import Reply, Request
from baton.base.server import HttpServer, ServerLimits

LIMIT_S = 20.0
"""No test waits this long unless it fails."""


def error_body(status: int, message: str) -> bytes:
    return json.dumps({"error": {"code": status, "message": message}}).encode()


async def echo(request: Request, reply: Reply) -> None:
    """Answers what it was asked, as JSON."""
    told = {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": request.headers,
        "body": request.body.decode("latin-1"),
        "peer": request.peer,
    }
    reply.send(200, {"content-type": "application/json"}, json.dumps(told).encode())


@contextlib.asynccontextmanager
async def serving(
    handler: Callable[[Request, Reply], Awaitable[None]] = echo, grace_s: float = 0.0, **limits: Any
) -> AsyncIterator[HttpServer]:
    server = HttpServer(handler, error_body, ServerLimits(**limits))
    await server.start("127.0.0.1", 0)
    try:
        async with asyncio.timeout(LIMIT_S):
            yield server
    finally:
        await server.stop(grace_s)


class Client:
    """A socket that says exactly what a test wants said."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def rest(self) -> bytes:
        return await self.reader.read()

    async def reply(self, *, bodiless: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one reply; IncompleteReadError if it was cut."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = b""
        if bodiless:
            pass
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        else:
            body = await self.reader.read()
        return int(first.split()[1]), headers, body


@contextlib.asynccontextmanager
async def client_of(server: HttpServer) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def get(path: str = "/", *lines: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/{version}", "Host: gateway", *lines, "", ""]).encode()


def post(body: bytes, *lines: str) -> bytes:
    return (
        "\r\n".join(["POST /v1 HTTP/1.1", "Host: gateway", f"Content-Length: {len(body)}", *lines, "", ""]).encode()
        + body
    )


@pytest.fixture
async def reported() -> list[dict[str, Any]]:
    """What the server reports to the loop, instead of logging it."""
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    return seen


# -- requests ------------------------------------------------------------------------------------------------------


async def test_a_request_arrives_whole() -> None:
    """Method, path, query, lower-case and joined headers, body and peer reach the handler."""
    async with serving() as server, client_of(server) as client:
        client.say(
            b"POST /v1/a%20b?x=1&y=? HTTP/1.1\r\nHOST: g\r\nX-Two: a\r\nx-two:   b  \r\nContent-Length: 5\r\n\r\nhello"
        )
        status, headers, body = await client.reply()
        told = json.loads(body)
        assert status == 200
        assert headers["content-type"] == "application/json"
        assert "connection" not in headers
        assert told == {
            "method": "POST",
            "path": "/v1/a%20b",
            "query": "x=1&y=?",
            "headers": {"host": "g", "x-two": "a, b", "content-length": "5"},
            "body": "hello",
            "peer": "127.0.0.1",
        }


async def test_a_request_may_arrive_byte_by_byte() -> None:
    """Cuts in a stream of bytes mean nothing."""
    async with serving() as server, client_of(server) as client:
        head = b"POST /abc HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
        for byte in head + b"3\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n":
            client.say(bytes([byte]))
            await asyncio.sleep(0)
        told = json.loads((await client.reply())[2])
        assert told["path"] == "/abc"
        assert told["body"] == "abcde"
        assert "x" not in told["headers"]


async def test_absolute_form_target() -> None:
    """A target that names a host is read as its path (RFC 9112, 3.2.2)."""
    async with serving() as server, client_of(server) as client:
        client.say(get("http://gateway:80/v1/models?a=b"))
        told = json.loads((await client.reply())[2])
        assert (told["path"], told["query"]) == ("/v1/models", "a=b")


async def test_keep_alive_and_close() -> None:
    """A connection carries request after request, until one asks to close."""
    async with serving() as server, client_of(server) as client:
        for _ in range(3):
            client.say(get())
            assert (await client.reply())[0] == 200
        client.say(get("/", "Connection: close"))
        assert (await client.reply())[1]["connection"] == "close"
        assert await client.rest() == b""


async def test_http_1_0_streams_until_the_end_of_the_connection() -> None:
    """An HTTP/1.0 client can't read chunks: its body ends with its connection."""

    async def handler(_: Request, reply: Reply) -> None:
        reply.start(200, {})
        reply.write(b"one")
        reply.write(b"two")
        reply.end()

    async with serving(handler) as server, client_of(server) as client:
        client.say(get(version="1.0"))
        status, headers, body = await client.reply()
        assert (status, body) == (200, b"onetwo")
        assert "transfer-encoding" not in headers
        assert headers["connection"] == "close"


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Replies keep the order of requests, and the second handler starts only after the first reply."""
    running = 0

    async def handler(request: Request, reply: Reply) -> None:
        nonlocal running
        running += 1
        assert running == 1
        for _ in range(len(request.path) % 3):
            await asyncio.sleep(0)
        running -= 1
        reply.send(200, {}, request.path.encode() + request.body)

    async with serving(handler) as server, client_of(server) as client:
        paths = ["/" + "x" * n for n in range(40)]
        client.say(b"".join([get(path) for path in paths[:20]]) + post(b"abc") + get("/cut")[:10])
        for path in paths[:20]:
            assert (await client.reply())[2] == path.encode()
        assert (await client.reply())[2] == b"/v1abc"
        client.say(get("/cut")[10:])
        assert (await client.reply())[2] == b"/cut"


async def test_what_is_pipelined_is_bounded() -> None:
    """While a reply is under way, a client can't make the server keep what it sends on."""
    release = asyncio.Event()

    async def handler(_: Request, reply: Reply) -> None:
        await release.wait()
        reply.send(200, {}, b"ok")

    async with serving(handler, max_backlog_bytes=50_000) as server, client_of(server) as client:
        num = 100_000
        client.say(get())
        client.writer.write(get() * num)  # 3.5 MB
        (connection,) = await _until(lambda: server.connections)
        await _until(lambda: len(connection._backlog) > 50_000)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(connection._backlog) < 50_000 + 262_144 + 1
        release.set()
        for _ in range(1000):
            assert (await client.reply())[2] == b"ok"


async def test_expect_100_continue() -> None:
    """A client that waits for leave to send its body gets it."""
    async with serving() as server, client_of(server) as client:
        client.say(b"POST / HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.say(b"ab")
        assert json.loads((await client.reply())[2])["body"] == "ab"


async def test_an_offer_to_upgrade_is_ignored() -> None:
    """Java's client offers HTTP/2 on every plain connection, with a body behind it: it is served in HTTP/1.1."""
    async with serving() as server, client_of(server) as client:
        client.say(
            post(b"hello", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA") + get("/b")
        )
        assert json.loads((await client.reply())[2])["body"] == "hello"
        assert json.loads((await client.reply())[2])["path"] == "/b"


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: g\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: g\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET http://[/ HTTP/1.1\r\nHost: g\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: g\r\n\r\n", 505),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: g\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: g\r\nX: " + b"x" * 2000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: g\r\n" + b"X: y\r\n" * 400 + b"\r\n", 431),
        (b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\nHost: g\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 5001\r\n\r\n", 413),
        (
            b"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
            + (b"3e8\r\n" + b"x" * 1000 + b"\r\n") * 6,
            413,
        ),
        (b"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 2000 + b"\r\n\r\n", 431),
    ],
)
async def test_refusals(said: bytes, status: int) -> None:
    """What can't be served is answered in the caller's error shape, and the connection ends."""
    async with serving(max_head_bytes=1000, max_body_bytes=5000) as server, client_of(server) as client:
        client.say(get("/fine"))
        client.say(said)
        assert json.loads((await client.reply())[2])["path"] == "/fine"
        got, headers, body = await client.reply()
        assert got == status
        assert headers["connection"] == "close"
        assert headers["content-type"] == "application/json"
        assert json.loads(body)["error"]["code"] == status
        assert await client.rest() == b""


@pytest.mark.parametrize(
    "start",
    [b"GET / HTTP/1.1\r\nHost: g\r\nX: ", b"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: "],
)
async def test_an_endless_header_is_not_kept(start: bytes) -> None:
    """A header or trailer that never ends is refused once over the limit, though the parser says nothing of it."""
    async with serving(max_head_bytes=10_000) as server, client_of(server) as client:
        client.say(start)
        reply = asyncio.create_task(client.reply())
        num_said = 0
        while not reply.done():
            client.say(b"x" * 1000)
            num_said += 1000
            await asyncio.sleep(0)
        assert (await reply)[0] == 431


async def test_a_refusal_reaches_a_client_that_is_still_sending() -> None:
    """A client with a large body still on its way can read why it was refused."""
    async with serving(max_body_bytes=1000) as server, client_of(server) as client:
        client.say(post(b"x" * 4_000_000))
        await client.writer.drain()
        assert (await client.reply())[0] == 413


async def test_a_refused_client_that_keeps_sending_is_cut() -> None:
    """A refused client can't hold its connection by sending on."""
    async with serving(max_body_bytes=1000, linger_s=0.02) as server, client_of(server) as client:
        client.say(post(b"x" * 2000)[:1500])
        assert (await client.reply())[0] == 413
        await _until(lambda: not server.connections)


# -- replies -------------------------------------------------------------------------------------------------------


async def test_a_streamed_reply() -> None:
    """A reply without a length is chunked; what is written in one turn of the loop is sent at once."""
    go_on = asyncio.Event()

    async def handler(_: Request, reply: Reply) -> None:
        reply.start(200, {"content-type": "text/event-stream"})
        assert reply.write(b"data: 1\n\n")
        reply.write(b"")
        reply.write(b"data: 2\n\n")
        await go_on.wait()
        reply.write(b"data: 3\n\n")
        reply.end()
        reply.end()

    async with serving(handler) as server, client_of(server) as client:
        client.say(get())
        first = await client.reader.read(65536)
        assert first == (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            b"9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n"
        )
        go_on.set()
        assert await client.reader.readuntil(b"0\r\n\r\n") == b"9\r\ndata: 3\n\n\r\n0\r\n\r\n"
        client.say(get())
        assert (await client.reply())[2].count(b"data") == 3


async def test_one_write_per_turn() -> None:
    """Many writes in one turn of the loop are one call of the transport."""
    writes: list[int] = []

    class Counting:
        def __init__(self, transport: asyncio.Transport) -> None:
            self.transport = transport

        def __getattr__(self, name: str) -> Any:
            return getattr(self.transport, name)

        def write(self, data: bytes) -> None:
            writes.append(len(data))
            self.transport.write(data)

    async def handler(_: Request, reply: Reply) -> None:
        connection = reply._connection
        connection._transport = Counting(connection._transport)  # type: ignore[assignment]
        reply.start(200, {})
        for _ in range(10):
            reply.write(b"data: x\n\n")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(writes) == 1
        reply.write(b"data: x\n\n")
        reply.end()
        assert len(writes) == 2

    async with serving(handler) as server, client_of(server) as client:
        client.say(get())
        assert (await client.reply())[2] == b"data: x\n\n" * 11


@pytest.mark.parametrize("length", [None, 5])
async def test_head_gets_no_body(length: int | None) -> None:
    """HEAD is answered with the head alone, and the connection goes on."""

    async def handler(_: Request, reply: Reply) -> None:
        reply.start(200, {}, length)
        reply.write(b"hello")
        reply.end()

    async with serving(handler) as server, client_of(server) as client:
        for _ in range(2):
            client.say(b"HEAD / HTTP/1.1\r\nHost: g\r\n\r\n")
            status, headers, _ = await client.reply(bodiless=True)
            assert status == 200
            assert headers.get("content-length") == (None if length is None else "5")
    async with serving() as server, client_of(server) as client:
        client.say(b"HEAD / HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n")
        assert int((await client.reply(bodiless=True))[1]["content-length"]) > 0
        assert await client.rest() == b""


async def test_204_has_no_body_and_no_length() -> None:
    """A status that can't have a body has no framing either."""

    async def handler(_: Request, reply: Reply) -> None:
        reply.send(204, {}, b"")

    async with serving(handler) as server, client_of(server) as client:
        client.say(get() + get())
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 204 No Content\r\n\r\n"
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 204 No Content\r\n\r\n"


async def fails_early(_: Request, __: Reply) -> None:
    raise ZeroDivisionError


async def says_nothing(_: Request, __: Reply) -> None:
    return


async def leaks_a_cancellation(_: Request, __: Reply) -> None:
    raise asyncio.CancelledError


async def splits_a_header(_: Request, reply: Reply) -> None:
    reply.send(200, {"x": "a\r\nset-cookie: b"}, b"")


async def frames_by_hand(_: Request, reply: Reply) -> None:
    reply.send(200, {"Content-Length": "3"}, b"abcd")


@pytest.mark.parametrize("handler", [fails_early, says_nothing, leaks_a_cancellation, splits_a_header, frames_by_hand])
async def test_a_handler_that_fails_before_its_reply(handler: Any, reported: list[dict[str, Any]]) -> None:
    """The client gets a 500 in the caller's shape, the connection lives on, and the error is reported."""
    async with serving(handler) as server, client_of(server) as client:
        for _ in range(2):
            client.say(get())
            status, _, body = await client.reply()
            assert status == 500
            assert json.loads(body)["error"]["code"] == 500
        assert len(reported) == 2


async def fails_late(_: Request, reply: Reply) -> None:
    reply.start(200, {})
    reply.write(b"some")
    await asyncio.sleep(0.01)
    raise ZeroDivisionError


async def forgets_to_end(_: Request, reply: Reply) -> None:
    reply.start(200, {})
    reply.write(b"some")
    await reply.drain()


async def too_short(_: Request, reply: Reply) -> None:
    reply.start(200, {}, 10)
    reply.write(b"some")
    reply.end()


async def too_long(_: Request, reply: Reply) -> None:
    reply.start(200, {}, 4)
    reply.write(b"some")
    reply.write(b"more")


@pytest.mark.parametrize("handler", [fails_late, forgets_to_end, too_short, too_long])
async def test_a_reply_that_fails_never_looks_complete(handler: Any, reported: list[dict[str, Any]]) -> None:
    """A reply broken off after its start is cut: no last chunk, no padding, no second head."""
    async with serving(handler) as server, client_of(server) as client:
        client.say(get() + get())
        got = b""
        with contextlib.suppress(ConnectionResetError):
            got = await client.rest()
        assert not got.endswith(b"0\r\n\r\n")
        assert got.count(b"HTTP/1.1") <= 1
        assert len(reported) == 1


async def test_a_handler_can_cut_its_reply(reported: list[dict[str, Any]]) -> None:
    """`abort` cuts the connection without being an error of the handler's."""

    async def handler(_: Request, reply: Reply) -> None:
        reply.start(200, {})
        reply.write(b"some")
        await asyncio.sleep(0)
        reply.abort()

    async with serving(handler) as server, client_of(server) as client:
        client.say(get())
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.reply()
        assert reported == []


# -- clients that leave or are slow --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset", "half"])
async def test_a_client_that_leaves_cancels_its_handler(how: str, reported: list[dict[str, Any]]) -> None:
    """However a client leaves while its handler waits upstream, the handler is cancelled."""
    waiting, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(_: Request, reply: Reply) -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            reply.send(200, {}, b"to nobody")
            raise

    async with serving(handler) as server, client_of(server) as client:
        client.say(get() + get("/never"))
        await waiting.wait()
        if how == "half":
            client.writer.write_eof()
        elif how == "reset":
            sock = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.writer.transport.abort()
        else:
            client.writer.close()
        await cancelled.wait()
        await _until(lambda: not server.connections)
        assert reported == []


async def test_a_client_that_leaves_mid_stream_cancels_its_handler() -> None:
    """A client that stops reading and leaves, with much of its reply unsent, cancels its handler too."""
    cancelled = asyncio.Event()

    async def handler(_: Request, reply: Reply) -> None:
        reply.start(200, {})
        try:
            while True:
                if not reply.write(b"x" * 10_000):
                    await reply.drain()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serving(handler) as server, client_of(server) as client:
        client.say(get())
        await client.reader.readexactly(100_000)
        client.writer.transport.abort()
        await cancelled.wait()


async def test_a_handler_may_finish_after_its_reply() -> None:
    """Once the reply has ended, a client that leaves no longer cancels the handler."""
    go_on, finished = asyncio.Event(), asyncio.Event()

    async def handler(_: Request, reply: Reply) -> None:
        reply.send(200, {}, b"ok")
        await go_on.wait()
        finished.set()

    async with serving(handler) as server:
        async with client_of(server) as client:
            client.say(get())
            await client.reply()
            (connection,) = server.connections
        await _until(lambda: connection._lost)
        assert server.connections
        go_on.set()
        await finished.wait()
        await _until(lambda: not server.connections)


async def test_a_slow_reader_bounds_what_is_kept_for_it() -> None:
    """50 MB for a client that doesn't read keep about one limit of bytes here, and arrive when the client reads."""
    kept: list[int] = []
    total = 50_000_000
    stalled = asyncio.Event()

    async def handler(_: Request, reply: Reply) -> None:
        transport = reply._connection._transport
        reply.start(200, {}, total)
        for _ in range(total // 50_000):
            if not reply.write(b"x" * 50_000):
                stalled.set()
                await reply.drain()
            kept.append(transport.get_write_buffer_size() + sum(map(len, reply._connection._out)))
        reply.end()

    async with serving(handler, max_unsent_bytes=100_000) as server, client_of(server) as client:
        client.say(get())
        await stalled.wait()
        assert len((await client.reply())[2]) == total
        assert max(kept) < 100_000 + 2 * 50_000 + 1000


async def test_a_slow_request_times_out() -> None:
    """A request that isn't complete in `receive_s`, however busily it trickles, gets a 408 and the connection ends."""
    async with serving(receive_s=0.1) as server, client_of(server) as client:
        client.say(b"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n")
        reply = asyncio.create_task(client.reply())
        while not reply.done():
            client.say(b"1\r\nx\r\n")
            await asyncio.sleep(0.005)
        assert (await reply)[0] == 408
        assert await client.rest() == b""


@pytest.mark.parametrize("num_before", [0, 1])
async def test_an_idle_connection_is_closed(num_before: int) -> None:
    """A connection without a request, first or next, ends in silence after `idle_s`."""
    async with serving(idle_s=0.05) as server, client_of(server) as client:
        for _ in range(num_before):
            client.say(get())
            await client.reply()
        assert await client.rest() == b""


async def test_no_timer_runs_while_a_handler_works() -> None:
    """A reply may take longer than any of the connection's own limits."""

    async def handler(_: Request, reply: Reply) -> None:
        await asyncio.sleep(0.15)
        reply.send(200, {}, b"ok")

    async with serving(handler, idle_s=0.05, receive_s=0.05) as server, client_of(server) as client:
        client.say(get() + get()[:20])
        assert (await client.reply())[0] == 200
        client.say(get()[20:])
        assert (await client.reply())[0] == 200


# -- the server ----------------------------------------------------------------------------------------------------


async def test_accepted_sockets_have_nagle_off() -> None:
    """Without TCP_NODELAY, a stream of small events meets delayed acknowledgements: 40 ms each."""
    found: list[int] = []

    async def handler(_: Request, reply: Reply) -> None:
        sock = reply._connection._transport.get_extra_info("socket")
        found.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        reply.send(200, {}, b"")

    async with serving(handler) as server, client_of(server) as client:
        client.say(get())
        await client.reply()
        assert found[0]


async def test_stop_lets_replies_end_and_closes_idle_connections() -> None:
    """Stopping refuses new connections, ends idle ones at once, and waits for replies under way."""
    started, go_on = asyncio.Event(), asyncio.Event()

    async def handler(_: Request, reply: Reply) -> None:
        reply.start(200, {})
        started.set()
        await go_on.wait()
        reply.write(b"all of it")
        reply.end()

    async with serving(handler) as server, client_of(server) as busy, client_of(server) as idle:
        address = server.address
        busy.say(get())
        await started.wait()
        await _until(lambda: len(server.connections) == 2)
        stopping = asyncio.create_task(server.stop(10))
        assert await idle.rest() == b""
        with pytest.raises(OSError):  # noqa: PT011 (refused or reset, as the system likes)
            await (await asyncio.open_connection(*address))[0].readexactly(1)
        assert not stopping.done()
        go_on.set()
        assert (await busy.reply())[2] == b"all of it"
        await stopping
        assert await busy.rest() == b""


async def test_stop_cuts_replies_that_outlast_the_grace() -> None:
    """After the grace, a reply is cut and its handler cancelled; `stop` returns when both are gone."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(_: Request, reply: Reply) -> None:
        reply.start(200, {})
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with serving(handler) as server, client_of(server) as client:
        client.say(get())
        await started.wait()
        await server.stop(0.02)
        assert cancelled.is_set()
        assert not server.connections
        with contextlib.suppress(ConnectionResetError):
            assert not (await client.rest()).endswith(b"0\r\n\r\n")


async def test_many_clients_at_once() -> None:
    """Two hundred clients with five requests each get their own answers."""

    async def handler(request: Request, reply: Reply) -> None:
        await asyncio.sleep(0)
        reply.start(200, {})
        for _ in range(3):
            reply.write(request.path.encode())
            await asyncio.sleep(0)
        reply.end()

    async def one(server: HttpServer, n: int) -> None:
        async with client_of(server) as client:
            for m in range(5):
                client.say(get(f"/{n}-{m}"))
                assert (await client.reply())[2] == f"/{n}-{m}".encode() * 3

    async with serving(handler) as server:
        await asyncio.gather(*[one(server, n) for n in range(200)])


async def _until(condition: Callable[[], Any]) -> Any:
    """Turn the loop until `condition` holds; the test's own limit ends a wait in vain."""
    while not (value := condition()):  # noqa: ASYNC110 (what is waited for has no event)
        await asyncio.sleep(0.001)
    return value
