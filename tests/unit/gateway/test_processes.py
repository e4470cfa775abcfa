"""Several gateway processes: real ones, on stand-in engines in the test's own."""

import asyncio
import contextlib
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random

import httpx
import pytest
from fakes.deployment import eventually

from baton.engine.stand_in.config import StandInConfig, StepTime
from baton.engine.stand_in.server import StandIn

BODY = {"model": "tiny-r1", "prompt": "What is 2 + 2?", "max_tokens": 4, "temperature": 0}
FAST = StandInConfig(step_time=StepTime.zero(), transfer_latency_s=0, dp_size=2)


class Gateway:
    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    async def ask(self) -> httpx.Response:
        """On a connection of its own, so that the kernel chooses a front."""
        async with httpx.AsyncClient(timeout=20) as client:
            return await client.post(f"{self.url}/v1/completions", json=BODY)

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(timeout=20) as client:
            return await client.get(self.url + path)

    async def is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return (await self.get("/ready")).status_code == 200
        return False

    def fronts(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        return [int(pid) for pid in children.split()]


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():  # noqa: ASYNC110 (what is waited for is in other processes)
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def gateway(folder: Path, *more: str) -> AsyncIterator[Gateway]:
    engines = [StandIn(FAST, random=Random(place)) for place in range(2)]
    for engine in engines:
        await engine.start("127.0.0.1", 0)
    workers = [
        {"name": name, "role": name, "url": f"http://127.0.0.1:{engine.port}", "dp_ranks": [0, 1]}
        for name, engine in zip(("prefill", "decode"), engines, strict=True)
    ]
    path = folder / "workers.yaml"
    path.write_text(json.dumps({"model": "tiny-r1", "workers": workers}), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "baton", "gateway", "--workers", str(path), "--port", "0", "--processes", "2", *more,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = await asyncio.wait_for(process.stderr.readuntil(b"listening on "), 30)
        line = await process.stderr.readline()
        found = Gateway(process, line.decode().strip())
        draining = asyncio.create_task(process.stderr.read())
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", found.url), said + line
        await until(found.is_ready)
        yield found
        draining.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        for engine in engines:
            await engine.close()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(tmp_path, "--drain-s", "1") as found:
        yield found


async def both_served(served: Gateway) -> bool:
    return len(served.fronts()) == 2 and await served.is_ready()


async def test_every_front_serves_and_what_they_count_is_told_by_any(served: Gateway) -> None:
    await until(lambda: both_served(served))
    answers = await asyncio.gather(*(served.ask() for _ in range(24)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["choices"][0]["text"] for answer in answers}) == 1
    text = (await served.get("/metrics")).text
    assert 'baton_requests_total{path="/v1/completions",status="200"} 24.0' in text
    assert "baton_pairs_verified 4.0" in text
    assert re.search(r'baton_time_to_first_token_seconds_bucket\{le="\+Inf"\} 0', text), "none was streamed"
    routes = (await served.get("/debug/routes")).json()["routes"]
    assert len(routes) == 24
    assert {route["prefill"] for route in routes} == {"prefill/0", "prefill/1"}, "one router sees all requests"


async def test_a_front_that_is_killed_gives_back_what_it_held_and_is_started_again(served: Gateway) -> None:
    await until(lambda: both_served(served))
    before = served.fronts()
    for pid in before:
        (await asyncio.create_subprocess_exec("kill", "-9", str(pid)))

    async def others_serve() -> bool:
        now = served.fronts()
        return len(now) == 2 and not set(now) & set(before) and await served.is_ready()

    await until(others_serve)
    assert (await served.ask()).status_code == 200
    text = (await served.get("/metrics")).text
    assert all(line.endswith(" 0.0") for line in text.splitlines() if line.startswith("baton_rank_requests{"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_fronts_end_with_the_router_process(served: Gateway, signum: signal.Signals) -> None:
    await until(lambda: both_served(served))
    fronts = served.fronts()
    served.process.send_signal(signum)
    await asyncio.wait_for(served.process.wait(), 20)
    await eventually(lambda: not any(is_running(pid) for pid in fronts), "no front is left")


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    return False


async def test_every_front_reopens_the_access_log_when_told_to(tmp_path: Path) -> None:
    log, old = tmp_path / "access.jsonl", tmp_path / "old.jsonl"
    async with gateway(tmp_path, "--access-log", str(log), "--drain-s", "1") as served:
        await until(lambda: both_served(served))
        await asyncio.gather(*(served.ask() for _ in range(8)))
        await eventually(lambda: len(log.read_bytes().splitlines()) == 8)
        log.rename(old)
        served.process.send_signal(signal.SIGHUP)
        await eventually(log.exists)
        await eventually(lambda: not log_is_open(old, served.fronts()))
        await asyncio.gather(*(served.ask() for _ in range(8)))
        await eventually(lambda: len(log.read_bytes().splitlines()) == 8)


def log_is_open(path: Path, pids: list[int]) -> bool:
    return any(points_to(fd, path) for pid in pids for fd in Path(f"/proc/{pid}/fd").iterdir())


def points_to(link: Path, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # a front closes connections while its descriptors are listed
        return link.readlink() == path
    return False


async def test_a_port_that_other_fronts_share_is_not_shared_with_them(served: Gateway, tmp_path: Path) -> None:
    port = served.url.rpartition(":")[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "baton", "gateway", "--workers", str(tmp_path / "workers.yaml"), "--port", port,
        "--processes", "2", stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in said.decode()
