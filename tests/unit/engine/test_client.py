"""The engines' HTTP client, against sockets that say exactly what a test wants said."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from baton.base.errors import BugError, ConfigError, WorkerError
from baton.engine.client import HttpClient
from baton.engine.errors import EngineDisconnected, EngineError, EngineGarbled, EngineTimeout, EngineUnreachable
from baton.engine.origin import Origin

LIMIT_S = 20.0
"""No test waits this long unless it fails."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

Script = Callable[["Line"], Awaitable[None]]


class Line:
    """One connection as the engine sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.gone = asyncio.Event()
        """the client closed this connection"""

    async def request(self) -> tuple[str, dict[str, str], bytes]:
        """First line, headers and body of the next request; IncompleteReadError when the client left."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return first, headers, await self.reader.readexactly(int(headers.get("content-length", 0)))

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    def cut(self) -> None:
        self.writer.transport.abort()

    async def until_gone(self) -> None:
        with contextlib.suppress(OSError):
            while await self.reader.read(65536):
                pass
        self.gone.set()


class Engine:
    """Runs one script for each connection it accepts."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.lines: list[Line] = []
        self.failures: list[BaseException] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(reader, writer)
        self.lines.append(line)
        try:
            await self.script(line)
        except (asyncio.IncompleteReadError, OSError):
            line.gone.set()
        except AssertionError as error:
            self.failures.append(error)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def engine_of(script: Script) -> AsyncIterator[tuple[Engine, Origin]]:
    engine = Engine(script)
    server = await asyncio.start_server(engine.accept, "127.0.0.1", 0)
    try:
        async with asyncio.timeout(LIMIT_S):
            yield engine, Origin(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()
        for line in engine.lines:
            line.cut()
        await asyncio.sleep(0)
        assert engine.failures == []


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    client.close()
    await asyncio.sleep(0)
    assert not client.connections


def saying(*answers: bytes, then_close: bool = False) -> Script:
    """A script that answers the requests of one connection, each with the next of `answers`."""

    async def script(line: Line) -> None:
        for answer in answers:
            await line.request()
            line.say(answer)
        if not then_close:
            await line.until_gone()

    return script


async def always_ok(line: Line) -> None:
    while True:
        await line.request()
        line.say(OK)


async def ask(client: HttpClient, origin: Origin, body: bytes = b"{}", deadline_s: float | None = None) -> bytes:
    with await client.send(origin, "POST", "/v1", {}, body, deadline_s=deadline_s) as response:
        return await response.read(1_000_000)


def in_s(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


# -- origins -------------------------------------------------------------------------------------------------------


def test_origins() -> None:
    """An engine's address is http, a host, and perhaps a port."""
    assert Origin.parse("http://10.0.0.1:8000") == ("10.0.0.1", 8000)
    assert Origin.parse("http://prefill/") == ("prefill", 80)
    assert str(Origin.parse("http://[::1]:8000")) == "[::1]:8000"


@pytest.mark.parametrize(
    "url",
    [
        "https://h:1",
        "h:1",
        "http://",
        "http://h/v1",
        "http://h:x",
        "http://h:99999",
        "http://h?a",
        "http://u@h",
        "ftp://h",
    ],
)
def test_what_is_no_origin(url: str) -> None:
    """Anything else is a ConfigError that shows the address; https is refused by name."""
    with pytest.raises(ConfigError, match="no TLS" if url.startswith("https") else "expected http://HOST"):
        Origin.parse(url)


# -- exchanges -----------------------------------------------------------------------------------------------------


async def test_a_request_and_its_response(client: HttpClient) -> None:
    """The engine gets the request as meant; the caller gets status, headers and body."""

    async def script(line: Line) -> None:
        first, headers, body = await line.request()
        assert first == "POST /v1/completions HTTP/1.1"
        assert headers == {"x-request-id": "7", "host": str(origin), "content-length": "5"}
        assert body == b"hello"
        line.say(b"HTTP/1.1 201 Created\r\nX-A: 1\r\nx-a: 2 \r\nTransfer-Encoding: chunked\r\n\r\n")
        line.say(b"2\r\nab\r\n1\r\nc\r\n0\r\nT: x\r\n\r\n")
        await line.until_gone()

    async with engine_of(script) as (_, origin):
        with await client.send(origin, "POST", "/v1/completions", {"X-Request-Id": "7"}, b"hello") as response:
            assert response.status == 201
            assert response.headers == {"x-a": "1, 2", "transfer-encoding": "chunked"}
            assert await response.read(100) == b"abc"
            assert response.complete
        assert client.num_idle(origin) == 1


async def test_connections_are_kept_and_reused(client: HttpClient) -> None:
    """Requests one after another share a connection; requests at once don't."""
    async with engine_of(always_ok) as (engine, origin):
        for _ in range(5):
            assert await ask(client, origin) == b"ok"
        assert len(engine.lines) == 1
        assert await asyncio.gather(*[ask(client, origin) for _ in range(50)]) == [b"ok"] * 50
        assert len(engine.lines) == 50
        assert client.num_idle(origin) == 50


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_a_connection_that_will_close_is_not_kept(client: HttpClient, answer: bytes) -> None:
    """The engine decides whether its connection goes on."""
    async with engine_of(saying(answer)) as (engine, origin):
        assert await ask(client, origin) == b"ok"
        assert client.num_idle(origin) == 0
        await engine.lines[0].gone.wait()


async def test_an_early_answer_does_not_poison_the_connection(client: HttpClient) -> None:
    """An engine that answers before it took the whole request leaves a connection out of step: it is closed."""

    async def script(line: Line) -> None:
        line.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        line.writer.transport.pause_reading()
        await asyncio.sleep(LIMIT_S)

    async with engine_of(script) as (_, origin):
        with await client.send(origin, "POST", "/", {}, b"x" * 50_000_000) as response:
            assert (response.status, await response.read(10)) == (413, b"")
        assert client.num_idle(origin) == 0


async def test_an_idle_connection_is_closed_in_time() -> None:
    """A kept connection ends after `idle_s`, before the engine would end it."""
    client = HttpClient(idle_s=0.02)
    async with engine_of(always_ok) as (engine, origin):
        await ask(client, origin)
        assert client.num_idle(origin) == 1
        await engine.lines[0].gone.wait()
        assert client.num_idle(origin) == 0
        assert await ask(client, origin) == b"ok"
        client.close()


async def test_an_idle_connection_that_the_engine_closes_is_forgotten(client: HttpClient) -> None:
    """A goodbye, with or without words, on an idle connection is no error and no response."""

    async def script(line: Line) -> None:
        await line.request()
        line.say(OK)
        if len(engine.lines) == 1:
            await go_on.wait()
            line.say(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await line.until_gone()

    go_on = asyncio.Event()
    async with engine_of(script) as (engine, origin):
        await ask(client, origin)
        go_on.set()
        await engine.lines[0].gone.wait()
        assert client.num_idle(origin) == 0
        assert await ask(client, origin) == b"ok"


async def test_interim_responses_and_empty_bodies(client: HttpClient) -> None:
    """1xx is skipped; 204 and 304 end with their heads."""
    async with engine_of(
        saying(
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
            OK,
        )
    ) as (engine, origin):
        for status, body in [(204, b""), (304, b""), (200, b"ok")]:
            with await client.send(origin, "GET", "/", {}) as response:
                assert response.status == status
                assert "link" not in response.headers
                assert await response.read(10) == body
        assert len(engine.lines) == 1


async def test_sockets_have_nagle_off_and_keepalive_on(client: HttpClient) -> None:
    """Small writes leave at once, and a host that vanished is noticed."""
    async with engine_of(always_ok) as (_, origin):
        await ask(client, origin)
        (connection,) = client.connections
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize(
    "headers", [{"Content-Length": "3"}, {"transfer-encoding": "chunked"}, {"a": "b\r\nc: d"}, {"a": "\u20ac"}]
)
async def test_bad_headers_are_bugs(client: HttpClient, headers: dict[str, str]) -> None:
    """Framing, line breaks and letters that a head can't hold never reach an engine."""
    with pytest.raises(BugError):
        await client.send(Origin("127.0.0.1", 1), "POST", "/", headers)
    with pytest.raises(BugError):
        await client.send(Origin("127.0.0.1", 1), "POST", "/a HTTP/1.1\r\nx: y", {})
    with pytest.raises(BugError):
        await client.send(Origin("127.0.0.1", 1), "HEAD", "/", {})


# -- streaming -----------------------------------------------------------------------------------------------------


async def never() -> None:
    raise AssertionError("drain of a sink that was never full")


async def test_pipe_passes_events_as_they_arrive(client: HttpClient) -> None:
    """Each arrival reaches the sink before the next is sent; events of one read come in one call."""
    heard = asyncio.Queue[bytes]()

    async def script(line: Line) -> None:
        await line.request()
        line.say(CHUNKED)
        for n in range(5):
            line.say(b"2\r\nab\r\n3\r\ncd%d\r\n" % n)
            assert await heard.get() == b"abcd%d" % n
        line.say(b"0\r\n\r\n")
        await line.until_gone()

    def sink(data: bytes) -> bool:
        heard.put_nowait(data)
        return True

    async with engine_of(script) as (_, origin):
        with await client.send(origin, "POST", "/", {}, b"{}") as response:
            await response.pipe(sink, never)
            assert response.received_bytes == 25
        assert client.num_idle(origin) == 1


async def test_pipe_stops_reading_while_its_sink_is_full(client: HttpClient) -> None:
    """An engine that sends 50 MB to a full sink is held back by TCP; what is kept here stays small."""
    total = 50_000_000
    sent = 0

    async def script(line: Line) -> None:
        nonlocal sent
        await line.request()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            line.say(b"x" * 100_000)
            sent += 100_000
            await line.writer.drain()
        await line.until_gone()

    num_bytes = num_drains = 0
    reached = asyncio.Event()
    go_on = asyncio.Event()

    def sink(data: bytes) -> bool:
        nonlocal num_bytes
        num_bytes += len(data)
        assert len(data) <= 1_000_000
        return False

    async def drain() -> None:
        nonlocal num_drains
        num_drains += 1
        reached.set()
        await go_on.wait()

    async with engine_of(script) as (_, origin):
        with await client.send(origin, "POST", "/", {}, b"{}") as response:
            piping = asyncio.create_task(response.pipe(sink, drain))
            await reached.wait()
            last = -1
            while sent != last:  # until the engine is held back
                last = sent
                await asyncio.sleep(0.05)
            assert sent < total / 2
            assert num_bytes < 1_000_000
            go_on.set()
            await piping
        assert num_bytes == total
        assert num_drains > 10
        assert client.num_idle(origin) == 1


async def test_an_unread_response_stops_at_a_bound(client: HttpClient) -> None:
    """A response that nobody reads yet is not gathered without limit, and can still be read to its end."""
    total = 50_000_000

    async def script(line: Line) -> None:
        await line.request()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        line.say(b"x" * total)
        await line.until_gone()

    async with engine_of(script) as (_, origin):
        with await client.send(origin, "POST", "/", {}, b"{}") as response:
            while not response._paused:  # noqa: ASYNC110 (no event tells)
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            assert response.received_bytes < 2_000_000
            assert len(await response.read(total)) == total


async def test_chunks(client: HttpClient) -> None:
    """`chunks` gives the whole body, and an error in place of a missing end."""
    async with engine_of(
        saying(CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", CHUNKED + b"2\r\nab\r\n", then_close=True)
    ) as (_, origin):
        with await client.send(origin, "GET", "/", {}) as response:
            assert b"".join([data async for data in response.chunks()]) == b"abc"
        seen = b""
        with await client.send(origin, "GET", "/", {}) as response:
            chunks = response.chunks()
            while seen != b"ab":
                seen += await anext(chunks)
            with pytest.raises(EngineDisconnected):
                await anext(chunks)


async def test_what_a_sink_raises_comes_out(client: HttpClient) -> None:
    """A sink that fails ends the exchange with its own error, and the engine sees the disconnect."""

    def sink(_: bytes) -> bool:
        raise ZeroDivisionError

    async with engine_of(saying(CHUNKED + b"1\r\na\r\n")) as (engine, origin):
        with await client.send(origin, "GET", "/", {}) as response, pytest.raises(ZeroDivisionError):
            await response.pipe(sink, never)
        await engine.lines[0].gone.wait()


# -- giving up -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", CHUNKED + b"3\r\nabc\r\n"])
async def test_a_cancelled_task_disconnects(client: HttpClient, answer: bytes) -> None:
    """Whether the head or the body is awaited, cancelling closes the connection: the engine can stop its work."""
    asked = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        line.say(answer)
        asked.set()
        await line.until_gone()

    async with engine_of(script) as (engine, origin):
        task = asyncio.create_task(ask(client, origin))
        await asked.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await engine.lines[0].gone.wait()
        assert client.num_idle(origin) == 0
        assert not client.connections


async def test_leaving_a_response_unread_disconnects(client: HttpClient) -> None:
    """A response left half-read never gives its connection back; one that was complete does."""
    async with engine_of(saying(OK, CHUNKED + b"3\r\nabc\r\n")) as (engine, origin):
        with await client.send(origin, "GET", "/", {}) as response:
            pass
        assert client.num_idle(origin) == 1
        assert response.complete
        with await client.send(origin, "GET", "/", {}) as response:
            pass
        await engine.lines[0].gone.wait()
        assert client.num_idle(origin) == 0
        assert not response.complete


async def test_a_closed_client_fails_its_exchanges() -> None:
    """Closing ends exchanges under way with a typed error, without a second try."""
    client = HttpClient()
    asked = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        line.say(OK)
        await line.request()
        asked.set()
        await line.until_gone()

    async with engine_of(script) as (engine, origin):
        await ask(client, origin)
        task = asyncio.create_task(ask(client, origin))
        await asked.wait()
        client.close()
        with pytest.raises(EngineDisconnected):
            await task
        assert len(engine.lines) == 1
        with pytest.raises(BugError):
            await ask(client, origin)


# -- engines that fail ---------------------------------------------------------------------------------------------


async def test_a_refused_connection(client: HttpClient) -> None:
    """Nothing listens: EngineUnreachable, a WorkerError that names the origin and what was tried."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        origin = Origin(*sock.getsockname())
        with pytest.raises(EngineUnreachable, match=r"POST /v1") as caught:
            await ask(client, origin)
    assert caught.value.origin == origin
    assert str(origin) in str(caught.value)
    assert isinstance(caught.value, WorkerError)


async def test_a_connection_that_is_not_accepted_in_time() -> None:
    """A host that swallows packets is unreachable after `connect_timeout_s`, or the deadline if that is sooner."""
    client = HttpClient(connect_timeout_s=0.05)
    with socket.socket() as sock, contextlib.ExitStack() as full:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(4):  # the queue of a listener that never accepts: further handshakes hang
            filler = full.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
        with pytest.raises(EngineUnreachable, match=r"0\.05 s"):
            await ask(client, Origin(*sock.getsockname()))
        with pytest.raises(EngineTimeout):
            await ask(client, Origin(*sock.getsockname()), deadline_s=in_s(0.01))


async def test_an_unknown_name(client: HttpClient) -> None:
    """A name that doesn't resolve is unreachable too."""
    with pytest.raises(EngineUnreachable):
        await ask(client, Origin("no-such-engine.invalid", 1))


@pytest.mark.parametrize(
    ("answer", "received_bytes"),
    [
        (b"", 0),
        (b"HTTP/1.1 200 OK\r\nContent-", 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd", 4),
        (CHUNKED + b"3\r\nabc\r\n", 3),
        (CHUNKED + b"3\r\nabc\r\n0\r\n", 3),
        (CHUNKED + b"5\r\nabc", 3),
    ],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_truncated_response_is_an_error(
    client: HttpClient, answer: bytes, received_bytes: int, reset: bool
) -> None:
    """Wherever a response breaks off, it is never taken for complete, and the error says how much came."""
    go_on = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        line.say(answer)
        await line.writer.drain()
        if received_bytes:
            await go_on.wait()
        if reset:
            line.cut()

    got = b""

    def sink(data: bytes) -> bool:
        nonlocal got
        got += data
        if len(got) == received_bytes:
            go_on.set()
        return True

    async with engine_of(script) as (engine, origin):
        with pytest.raises(EngineDisconnected) as caught:
            await (await client.send(origin, "POST", "/", {}, b"{}")).pipe(sink, never)
        assert caught.value.received_bytes == received_bytes == len(got)
        assert caught.value.origin == origin
        assert len(engine.lines) == 1
        assert not client.connections


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nuntil I hang up",
        b"HTTP/1.0 200 OK\r\n\r\nuntil I hang up",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500,
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 2000 + b"\r\n\r\n",
        CHUNKED + b"zz\r\n",
    ],
)
async def test_garbled_responses(answer: bytes) -> None:
    """What is not HTTP, has no certain end, or has too large a head is an error, and closes the connection."""
    client = HttpClient(max_head_bytes=1000)
    async with engine_of(saying(answer)) as (engine, origin):
        with pytest.raises(EngineGarbled) as caught:
            await ask(client, origin)
        assert caught.value.origin == origin
        await engine.lines[0].gone.wait()
        assert not client.connections


async def test_an_endless_head_is_not_kept() -> None:
    """A head without an end is refused once it is over the limit, though the parser says nothing of it."""

    async def script(line: Line) -> None:
        await line.request()
        line.say(b"HTTP/1.1 200 OK\r\na: ")
        while True:
            line.say(b"x" * 1000)
            await line.writer.drain()

    client = HttpClient(max_head_bytes=100_000)
    async with engine_of(script) as (_, origin):
        with pytest.raises(EngineGarbled, match="100000"):
            await ask(client, origin)


async def test_a_body_over_the_readers_limit(client: HttpClient) -> None:
    """`read` takes as much as its caller allows, no more."""
    async with engine_of(
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabcdefghi", CHUNKED + b"a\r\n0123456789\r\n")
    ) as (
        engine,
        origin,
    ):
        with await client.send(origin, "GET", "/", {}) as response:
            assert await response.read(9) == b"abcdefghi"
        with await client.send(origin, "GET", "/", {}) as response, pytest.raises(EngineGarbled, match="over 9 bytes"):
            await response.read(9)
        await engine.lines[0].gone.wait()


@pytest.mark.parametrize("answer", [b"", CHUNKED + b"3\r\nabc\r\n"])
async def test_the_deadline(client: HttpClient, answer: bytes) -> None:
    """A deadline that passes before the head or inside the body ends the exchange, for the engine too."""
    async with engine_of(saying(answer)) as (engine, origin):
        with pytest.raises(EngineTimeout) as caught:
            await ask(client, origin, deadline_s=in_s(0.05))
        assert caught.value.received_bytes == (3 if answer else 0)
        await engine.lines[0].gone.wait()


async def test_a_deadline_does_not_outlive_its_exchange() -> None:
    """The deadline of one exchange says nothing about the next on the same connection."""
    client = HttpClient(idle_s=5)
    slow = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        line.say(OK)
        await line.request()
        await slow.wait()
        line.say(OK)
        await line.until_gone()

    async with engine_of(script) as (_, origin):
        await ask(client, origin, deadline_s=in_s(0.03))
        task = asyncio.create_task(ask(client, origin, deadline_s=in_s(5)))
        await asyncio.sleep(0.08)
        slow.set()
        assert await task == b"ok"
    client.close()


# -- the keep-alive race -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
async def test_a_request_that_met_a_closing_connection_is_sent_again(client: HttpClient, reset: bool) -> None:
    """A reused connection that ends before a byte of the response: the request goes out once more, on a fresh one."""

    async def script(line: Line) -> None:
        await line.request()
        line.say(OK)
        await line.request()
        if len(engine.lines) == 1:
            if reset:
                line.cut()
            return
        line.say(OK)
        await line.until_gone()

    async with engine_of(script) as (engine, origin):
        assert await ask(client, origin) == b"ok"
        assert await ask(client, origin) == b"ok"
        assert len(engine.lines) == 2


async def test_the_race_is_run_once(client: HttpClient) -> None:
    """If the fresh connection ends the same way, that is the engine's failure."""

    async def script(line: Line) -> None:
        await line.request()
        if len(engine.lines) == 1:
            line.say(OK)
            await line.request()

    async with engine_of(script) as (engine, origin):
        await ask(client, origin)
        with pytest.raises(EngineDisconnected):
            await ask(client, origin)
        assert len(engine.lines) == 2


@pytest.mark.parametrize("first", [b"", OK])
async def test_nothing_else_is_sent_again(client: HttpClient, first: bytes) -> None:
    """A fresh connection that ends, or a response that had begun, is never tried again."""
    num_requests = 0

    async def script(line: Line) -> None:
        nonlocal num_requests
        if first:
            await line.request()
            line.say(first)
        await line.request()
        num_requests += 1
        if first:
            line.say(b"H")
            await line.writer.drain()

    async with engine_of(script) as (engine, origin):
        if first:
            await ask(client, origin)
        with pytest.raises(EngineDisconnected):
            await ask(client, origin)
        assert num_requests == len(engine.lines) == 1


async def test_nothing_is_left_behind(client: HttpClient) -> None:
    """Failures of every kind leave no connection, and errors are all EngineErrors."""

    async def script(line: Line) -> None:
        answer = [b"", b"HTTP/1.1 2", CHUNKED + b"1\r\na", b"junk\r\n\r\n", OK][len(engine.lines) % 5]
        await line.request()
        line.say(answer)

    async def one() -> bytes | None:
        try:
            return await ask(client, origin, deadline_s=in_s(10))
        except EngineError:
            return None

    async with engine_of(script) as (engine, origin):
        results = await asyncio.gather(*[one() for _ in range(100)])
        assert results.count(b"ok") == 20
        await asyncio.sleep(0)
        while client.connections:  # noqa: ASYNC110 (no event tells)
            await asyncio.sleep(0.001)
