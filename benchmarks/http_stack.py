"""Which HTTP stack should the gateway stand on? CPU per request and per streamed event of minimal P/D proxies.

Each proxy does the same: take a POST, POST it with max_tokens=1 to a prefill engine, put the kv_transfer_params of the
answer into the body, POST that to a decode engine, pass the answer on. No routing, no limits but the stack's own.
The floor forwards bytes on kept connections and understands none of them: what the kernel and the loop cost alone.

    python benchmarks/http_stack.py    # needs baton, aiohttp, uvicorn, httpx and sniffio installed; about 85 s

Without sniffio, httpcore 1.0 tries and fails to import it at every lock it takes, which doubles httpx's figures.

Figures are CPU time (user + system) of the proxy process alone, from its kernel CPU clock; wall time sizes the load.
The proxy has core 0; load and engines share core 1. Every candidate runs in every round; a figure is the median round.
A proxy that others keep from its core reads several events at once and looks cheap: rounds in which clients saw under
0.9 reads per event are left out of the paced figure, and where that leaves none the figure is marked with a star.
"""

import argparse
import asyncio
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import msgspec
import uvicorn
import uvloop
from aiohttp import web

from baton.base.reply import Reply, Request
from baton.base.server import HttpServer
from baton.engine.client import HttpClient
from baton.engine.origin import Origin

CANDIDATES = {
    "floor": "(floor: bytes forwarded, nothing parsed)",
    "own": "baton's own asyncio.Protocol pair + httptools",
    "uvicorn": "uvicorn bare ASGI (httptools) + aiohttp client",
    "aiohttp": "aiohttp server + aiohttp client",
    "uvicorn-httpx": "uvicorn bare ASGI (httptools) + httpx client",
}
NUM_EVENTS = 200
EVENT = (
    b'data: {"id":"cmpl-0123456789abcdef","object":"text_completion","created":1764000000,"model":"m",'
    b'"choices":[{"index":0,"text":" word","logprobs":null,"finish_reason":null}]}\n\n'
)
PREFILLED = msgspec.json.encode(
    {
        "id": "cmpl-0123456789abcdef",
        "object": "text_completion",
        "choices": [{"index": 0, "text": " a", "finish_reason": "length"}],
        "usage": {"prompt_tokens": 32, "completion_tokens": 1, "total_tokens": 33},
        "kv_transfer_params": {
            "do_remote_prefill": True,
            "remote_engine_id": "5ab9e9b0-6b4e-4c53-a8b6-6d2f3c1f0e11",
            "remote_block_ids": [17, 18, 19],
            "remote_host": "10.0.0.17",
            "remote_port": 5600,
            "tp_size": 1,
        },
    }
)


def both_legs(body: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The prefill leg's body, and what makes the decode leg's from prefill's answer: equal work for every candidate."""
    wanted = msgspec.json.decode(body)
    prefill = {**wanted, "stream": False, "max_tokens": 1, "kv_transfer_params": {"do_remote_decode": True}}

    def decode(answer: bytes) -> bytes:
        wanted["kv_transfer_params"] = msgspec.json.decode(answer)["kv_transfer_params"]
        return msgspec.json.encode(wanted)

    return msgspec.json.encode(prefill), decode


# -- the candidates ------------------------------------------------------------------------------------------------


class FloorLeg(asyncio.Protocol):
    """One kept connection to an engine, lent to one client at a time."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.client.answered(data)


class FloorClient(asyncio.Protocol):
    """Sends a request as it is to prefill, then to decode, whose bytes go to the client."""

    def __init__(self, legs: dict[int, list[FloorLeg]], prefill_port: int, decode_port: int) -> None:
        self.legs = legs
        self.ports = prefill_port, decode_port

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.request = data
        self.num_legs = 0
        self.step()

    def step(self) -> None:
        idle = self.legs.setdefault(self.ports[self.num_legs], [])
        if idle:
            self.lend(idle.pop())
        else:
            asyncio.ensure_future(self.connect(self.ports[self.num_legs]))  # noqa: RUF006 (ends with its connection)

    async def connect(self, port: int) -> None:
        self.lend((await asyncio.get_running_loop().create_connection(FloorLeg, "127.0.0.1", port))[1])

    def lend(self, leg: FloorLeg) -> None:
        leg.client, self.leg = self, leg
        leg.transport.write(
            self.request.replace(b'"stream":true', b'"stream":false') if not self.num_legs else self.request
        )

    def answered(self, data: bytes) -> None:
        if self.num_legs:
            self.transport.write(data)
            if b'"stream":true' in self.request and not data.endswith(b"0\r\n\r\n"):
                return
        self.legs[self.ports[self.num_legs]].append(self.leg)
        self.num_legs += 1
        if self.num_legs == 1:
            self.step()


async def run_floor(port: int, prefill_port: int, decode_port: int) -> None:
    legs: dict[int, list[FloorLeg]] = {}
    server = await asyncio.get_running_loop().create_server(
        lambda: FloorClient(legs, prefill_port, decode_port), "127.0.0.1", port, backlog=2048
    )
    await server.serve_forever()


async def run_own(port: int, prefill_port: int, decode_port: int) -> None:
    client = HttpClient()
    prefill_at, decode_at = Origin("127.0.0.1", prefill_port), Origin("127.0.0.1", decode_port)
    json_type = {"content-type": "application/json"}

    async def handle(request: Request, reply: Reply) -> None:
        deadline_s = asyncio.get_running_loop().time() + 600
        prefill_body, decode_body = both_legs(request.body)
        with await client.send(
            prefill_at, "POST", request.path, json_type, prefill_body, deadline_s=deadline_s
        ) as answer:
            body = decode_body(await answer.read(65536))
        with await client.send(decode_at, "POST", request.path, json_type, body, deadline_s=deadline_s) as answer:
            headers = {"content-type": answer.headers["content-type"]}
            if "content-length" in answer.headers:
                reply.send(answer.status, headers, await answer.read(1 << 24))
            else:
                reply.start(answer.status, headers)
                await answer.pipe(reply.write, reply.drain)
                reply.end()

    server = HttpServer(handle, lambda status, message: message.encode())
    await server.start("127.0.0.1", port)
    await asyncio.Event().wait()


async def run_aiohttp(port: int, prefill_port: int, decode_port: int) -> None:
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    prefill_at, decode_at = f"http://127.0.0.1:{prefill_port}", f"http://127.0.0.1:{decode_port}"
    json_type = {"content-type": "application/json"}

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        prefill_body, decode_body = both_legs(await request.read())
        async with session.post(prefill_at + request.path, data=prefill_body, headers=json_type) as answer:
            body = decode_body(await answer.read())
        async with session.post(decode_at + request.path, data=body, headers=json_type) as answer:
            headers = {"content-type": answer.headers["content-type"]}
            if "content-length" in answer.headers:
                return web.Response(status=answer.status, headers=headers, body=await answer.read())
            reply = web.StreamResponse(status=answer.status, headers=headers)
            await reply.prepare(request)
            async for data in answer.content.iter_any():
                await reply.write(data)
            await reply.write_eof()
            return reply

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


async def run_uvicorn(port: int, prefill_port: int, decode_port: int, *, use_httpx: bool = False) -> None:
    prefill_at, decode_at = f"http://127.0.0.1:{prefill_port}", f"http://127.0.0.1:{decode_port}"
    json_type = {"content-type": "application/json"}
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None, max_keepalive_connections=None), timeout=600)

    async def start(send: Any, status: int, headers: Any) -> None:
        names = ("content-type", "content-length")
        kept = [(name.encode(), headers[name].encode()) for name in names if name in headers]
        await send({"type": "http.response.start", "status": status, "headers": kept})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        prefill_body, decode_body = both_legs(body)
        if use_httpx:
            answer = await client.post(prefill_at + scope["path"], content=prefill_body, headers=json_type)
            body = decode_body(answer.content)
            async with client.stream("POST", decode_at + scope["path"], content=body, headers=json_type) as answer:
                await start(send, answer.status_code, answer.headers)
                async for data in answer.aiter_raw():
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        else:
            async with session.post(prefill_at + scope["path"], data=prefill_body, headers=json_type) as reply:
                body = decode_body(await reply.read())
            async with session.post(decode_at + scope["path"], data=body, headers=json_type) as reply:
                await start(send, reply.status, reply.headers)
                async for data in reply.content.iter_any():
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="error",
    )
    await uvicorn.Server(config).serve()


# -- the engines ---------------------------------------------------------------------------------------------------


class Engine(asyncio.Protocol):
    """Answers at once, or streams: NUM_EVENTS events in one burst, or one in each step of the engine's clock."""

    def __init__(self, running: "dict[Engine, int] | None") -> None:
        self.running = running
        self.data = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, rest = self.data.partition(b"\r\n\r\n")
        if not found or len(rest) < int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            return
        self.data = b""
        wanted = msgspec.json.decode(rest)
        if wanted.get("stream"):
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nserver: engine\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                b"transfer-encoding: chunked\r\n\r\n"
            )
            if self.running is not None:
                self.running[self] = NUM_EVENTS
            else:
                self.transport.write(b"%x\r\n%b\r\n" % (len(EVENT), EVENT) * NUM_EVENTS)
                self.transport.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        else:
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nserver: engine\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (len(PREFILLED), PREFILLED)
            )

    def connection_lost(self, exc: Exception | None) -> None:
        if self.running:
            self.running.pop(self, None)


async def run_engine(port: int, step_s: float) -> None:
    """Serve; with `step_s`, all running streams get one event together every `step_s`, as from vLLM's step loop."""
    loop = asyncio.get_running_loop()
    running: dict[Engine, int] | None = {} if step_s else None
    server = await loop.create_server(lambda: Engine(running), "127.0.0.1", port, backlog=2048)
    if running is None:
        await server.serve_forever()
    due_s = loop.time()
    event = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
    while running is not None:
        due_s = max(due_s + step_s, loop.time())
        await asyncio.sleep(due_s - loop.time())
        for engine, num_left in list(running.items()):
            if num_left:
                engine.transport.write(event)
                running[engine] = num_left - 1
            else:
                engine.transport.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
                del running[engine]


# -- the load ------------------------------------------------------------------------------------------------------


class Load(asyncio.Protocol):
    """One client: sends a request, reads the whole answer, sends the next. Counts answers, events and reads."""

    def __init__(self, request: bytes, totals: "Totals") -> None:
        self.request = request
        self.totals = totals
        self.need = -1
        self.tail = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.totals.num_reads += 1
        self.totals.num_events += data.count(b'"finish_reason"')
        self.tail += data
        if self.need < 0:
            head, found, rest = self.tail.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"a proxy failed: {self.tail!r}")
            length = head.lower().partition(b"content-length:")[2]
            self.need = int(length.split(b"\r\n")[0]) if length else 0
            self.tail = rest
        done = len(self.tail) >= self.need if self.need else self.tail.endswith(b"0\r\n\r\n")
        if done:
            self.totals.num_answers += 1
            self.need, self.tail = -1, b""
            self.transport.write(self.request)
        elif not self.need:
            self.tail = self.tail[-16:]


class Totals:
    num_answers = num_events = num_reads = 0


def request_of(stream: bool) -> bytes:
    prompt = " ".join(["word"] * 32)
    body = msgspec.json.encode({"model": "m", "prompt": prompt, "max_tokens": 200, "stream": stream, "temperature": 0})
    return (
        b"POST /v1/completions HTTP/1.1\r\nhost: gateway:8000\r\nuser-agent: load/1.0\r\naccept: */*\r\n"
        b"accept-encoding: gzip, deflate\r\nauthorization: Bearer sk-0123456789abcdef\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )


def cpu_s(pid: int) -> float:
    """User + system CPU seconds of another process, all its threads (the clock of clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


async def measure(port: int, pid: int, stream: bool, num_clients: int, seconds: float) -> tuple[float, Totals, float]:
    """CPU seconds of `pid`, what was counted, and wall seconds, after a warm-up of a quarter of the time."""
    loop = asyncio.get_running_loop()
    totals = Totals()
    request = request_of(stream)
    clients = [
        (await loop.create_connection(lambda: Load(request, totals), "127.0.0.1", port))[0] for _ in range(num_clients)
    ]
    await asyncio.sleep(seconds / 4)
    before, start_s = cpu_s(pid), loop.time()
    totals.num_answers = totals.num_events = totals.num_reads = 0
    await asyncio.sleep(seconds)
    counted = Totals()
    counted.num_answers, counted.num_events, counted.num_reads = totals.num_answers, totals.num_events, totals.num_reads
    spent, wall_s = cpu_s(pid) - before, loop.time() - start_s
    for client in clients:
        client.abort()
    await asyncio.sleep(0.05)
    return spent, counted, wall_s


async def until_listening(port: int) -> None:
    for _ in range(400):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise SystemExit(f"nothing listens on port {port}")


async def run_all(args: argparse.Namespace) -> None:
    cores = sorted(os.sched_getaffinity(0))
    proxy_core, load_core = cores[0], cores[min(1, len(cores) - 1)]
    os.sched_setaffinity(0, {load_core})
    children: list[subprocess.Popen[bytes]] = []

    def spawn(core: int, *words: object) -> int:
        command = [sys.executable, __file__, *map(str, words)]
        # What a proxy says about clients that vanish (after each measurement, on purpose) is no result.
        children.append(subprocess.Popen(command, stderr=None if args.noisy else subprocess.DEVNULL))
        os.sched_setaffinity(children[-1].pid, {core})
        return children[-1].pid

    prefill, burst, paced = args.port, args.port + 1, args.port + 2
    try:
        spawn(load_core, "--run", "engine", prefill, 0, 0)
        spawn(load_core, "--run", "engine", burst, 0, 0)
        spawn(load_core, "--run", "engine", paced, 0, 5)
        proxies = {}  # (candidate, decode port) -> (pid, port)
        for index, name in enumerate(args.only):
            for offset, decode in enumerate((burst, paced)):
                port = args.port + 10 + 2 * index + offset
                proxies[name, decode] = (spawn(proxy_core, "--run", name, port, prefill, decode), port)
        for port in [prefill, burst, paced, *(port for _, port in proxies.values())]:
            await until_listening(port)

        print(f"cores    proxy on {proxy_core}, load and engines on {load_core}, of {os.cpu_count()}; {cpu_model()}")
        if len(cores) == 1:
            print("         ONE CORE ONLY: proxy, load and engines share it")
        names = ("uvloop", "httptools", "aiohttp", "uvicorn", "httpx", "sniffio", "msgspec")
        print(
            f"versions Python {platform.python_version()}, "
            + ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names)
        )
        print(f"short    {args.clients} closed-loop clients, 32-word prompt, answers of {len(PREFILLED)} B, no stream")
        print(
            f"paced    {args.streams} streams of {NUM_EVENTS} events of {len(EVENT)} B, all streams together every 5 ms"
        )
        print(f"burst    8 streams of {NUM_EVENTS} events at once")
        load = os.getloadavg()[0]
        print(f"measure  proxy's CPU time, median of {args.rounds} rounds x {args.seconds} s; load average {load:.1f}")
        sys.stdout.flush()
        figures: dict[str, dict[str, list[float]]] = {
            name: {"short": [], "paced": [], "burst": [], "reads": []} for name in args.only
        }
        rates: dict[str, dict[str, float]] = {name: {} for name in args.only}
        for _ in range(args.rounds):
            for name in args.only:
                pid, port = proxies[name, burst]
                spent, totals, wall_s = await measure(port, pid, False, args.clients, args.seconds)
                figures[name]["short"].append(1e3 * spent / totals.num_answers)
                rates[name]["short"] = totals.num_answers / wall_s
                spent, totals, wall_s = await measure(port, pid, True, 8, args.seconds / 2)
                figures[name]["burst"].append(1e6 * spent / totals.num_events)
                pid, port = proxies[name, paced]
                spent, totals, wall_s = await measure(port, pid, True, args.streams, args.seconds)
                figures[name]["paced"].append(1e6 * spent / totals.num_events)
                figures[name]["reads"].append(totals.num_reads / totals.num_events)
                rates[name]["paced"] = totals.num_events / wall_s
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()
    report(figures, rates)


def report(figures: dict[str, dict[str, list[float]]], rates: dict[str, dict[str, float]]) -> None:
    starved = {name for name, f in figures.items() if max(f["reads"]) < 0.9}
    for name, f in figures.items():
        if name not in starved:
            fed = [index for index, reads in enumerate(f["reads"]) if reads >= 0.9]
            f["paced"], f["reads"] = [f["paced"][index] for index in fed], [f["reads"][index] for index in fed]
    middle = {name: {case: statistics.median(values) for case, values in f.items()} for name, f in figures.items()}
    whole = [row for name, row in middle.items() if name != "floor"]
    best = {case: min(row[case] for row in whole or middle.values()) for case in ("short", "paced", "burst")}
    print(f"\n{'':51}{'short P/D request':>24}{'1,000 paced events':>35}{'1,000 burst events':>20}")
    columns = f"{'CPU ms':>10}{'ratio':>7}{'/s':>7}{'CPU ms':>10}{'ratio':>7}{'/s':>8}{'reads/event':>12}"
    print(f"{'':51}{columns}{'CPU ms':>13}{'ratio':>7}")
    for name, row in sorted(middle.items(), key=lambda item: item[1]["paced"]):
        ratio = {case: row[case] / best[case] for case in best}
        star = "*" if name in starved else " "
        short = f"{row['short']:10.4f}{ratio['short']:7.2f}{rates[name]['short']:7.0f}"
        paced = f"{row['paced']:9.2f}{star}{ratio['paced']:7.2f}{rates[name]['paced']:8.0f}{row['reads']:12.2f}"
        print(f"{CANDIDATES[name]:51}{short}{paced}{row['burst']:13.2f}{ratio['burst']:7.2f}")
    print("\nspread over rounds (lowest-highest), the share of a figure that is noise:")
    for name, f in figures.items():
        spreads = ", ".join(f"{case} {min(f[case]):.3f}-{max(f[case]):.3f}" for case in ("short", "paced", "burst"))
        print(f"  {name:14} {spreads}; paced rounds kept: {len(f['paced'])}")


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CANDIDATES), default=list(CANDIDATES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.6)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--port", type=int, default=18600, help="first of 20 free ports")
    parser.add_argument("--noisy", action="store_true", help="show what the proxies print")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run is None:
        uvloop.run(run_all(args))
        return
    name, port, first, second = args.run[0], *map(int, args.run[1:])
    if name == "engine":
        uvloop.run(run_engine(port, second / 1000))
    elif name == "floor":
        uvloop.run(run_floor(port, first, second))
    elif name == "own":
        uvloop.run(run_own(port, first, second))
    elif name == "aiohttp":
        uvloop.run(run_aiohttp(port, first, second))
    else:
        uvloop.run(run_uvicorn(port, first, second, use_httpx=name == "uvicorn-httpx"))


if __name__ == "__main__":
    main()
