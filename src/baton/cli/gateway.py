"""`baton gateway`: serve the workers of a file on one OpenAI-compatible address."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import SystemRandom
from typing import Annotated

import typer
import uvloop

from baton.base.errors import ConfigError
from baton.engine.client import HttpClient
from baton.gateway.access_log import AccessLog
from baton.gateway.app import MAX_PREFIX_BLOCKS, Gateway, serve
from baton.gateway.keys import Keys
from baton.gateway.processes import serve_by_fronts
from baton.gateway.remote_router import RemoteRouter
from baton.gateway.tracing import Tracing, open_tracing
from baton.policy.admission import Admission
from baton.policy.exact_prefixes import ExactPrefixes
from baton.policy.prefix_index import PrefixIndex
from baton.policy.routing import Router
from baton.policy.step_times import StepTimes
from baton.recipe.recipe import Gateway as InRecipe
from baton.recipe.workers import load_workers

_USUAL = InRecipe()
_LOOK_S = 2.0
"""How often the API keys file is looked at."""


def gateway(
    workers: Annotated[Path, typer.Option(help="Workers file: url, role, dp ranks and NIXL port of every engine.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = _USUAL.host,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = _USUAL.port,
    request_timeout_s: Annotated[
        float, typer.Option(help="The one deadline of a request, seconds.")
    ] = _USUAL.request_timeout_s,
    max_body_bytes: Annotated[int, typer.Option(help="Largest request body.")] = _USUAL.max_body_bytes,
    drain_s: Annotated[float, typer.Option(min=0, help="How long requests may go on after SIGTERM, seconds.")] = 10.0,
    affinity_s: Annotated[
        float, typer.Option(min=0, help="What serving a session (x-session-id) where it was last is worth, seconds.")
    ] = 0.02,
    prefix_blocks: Annotated[
        int, typer.Option(min=0, help="Blocks of 512 bytes of prompts to remember the place of, over all ranks.")
    ] = MAX_PREFIX_BLOCKS,
    exact_prefixes: Annotated[
        bool, typer.Option(help="Route by the engines' KV events; prompts are tokenized by prefill engines first.")
    ] = _USUAL.exact_prefixes,
    prefill_locally: Annotated[
        bool, typer.Option(help="Let a decode rank prefill a prompt itself where that is predicted to be faster.")
    ] = False,
    api_keys: Annotated[
        Path | None, typer.Option(help="File of API keys; read again when it changes. Without it anybody may ask.")
    ] = None,
    ttft_deadline_s: Annotated[
        float, typer.Option(min=0, help="Turn away what can't start within this, unless its API key says otherwise.")
    ] = _USUAL.ttft_deadline_s,
    max_queued: Annotated[int, typer.Option(min=1, help="Most requests that wait to be let in.")] = _USUAL.max_queued,
    hold_s: Annotated[
        float, typer.Option(min=0, help="Requests wait here while every engine's queue is longer than this, seconds.")
    ] = _USUAL.hold_s,
    processes: Annotated[
        int, typer.Option(min=1, help="Above 1: so many share the port, and one more routes for all of them.")
    ] = _USUAL.processes,
    front: Annotated[str, typer.Option(hidden=True, help="Socket of the router process that started this.")] = "",
    access_log: Annotated[
        str, typer.Option(help="File for one JSON line a request, without prompts; - is stdout. SIGHUP reopens it.")
    ] = "",
    trace_endpoint: Annotated[
        str, typer.Option(help="OTLP/HTTP endpoint for traces, such as http://collector:4318/v1/traces.")
    ] = "",
    trace_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests traced whose clients do not decide it themselves.")
    ] = 0.01,
) -> None:
    """Serve running vLLM servers, baton's or anyone's, as one disaggregated deployment."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    index = ExactPrefixes(prefix_blocks) if exact_prefixes else PrefixIndex(prefix_blocks)
    router = Router(index=index, times=StepTimes(), affinity_s=affinity_s, prefill_locally=prefill_locally)

    file = load_workers(workers)
    admission = Admission(max_queued=max_queued, hold_s=hold_s)
    keys = Keys(api_keys, admission.classes, ttft_deadline_s, time.monotonic())

    def make(client: HttpClient, router: Router) -> Gateway:
        return Gateway(
            file,
            client,
            SystemRandom(),
            started_at_s=time.time(),
            request_timeout_s=request_timeout_s,
            router=router,
            admission=admission,
            keys=keys,
            exact_prefixes=exact_prefixes,
        )

    def command(port: int, path: str) -> list[str]:
        return [sys.executable, "-m", "baton", *sys.argv[1:], "--port", str(port), "--front", path]

    @contextlib.asynccontextmanager
    async def serving() -> AsyncIterator[tuple[Gateway, str]]:
        several = processes > 1 and not front
        async with _observed(access_log, trace_endpoint, trace_fraction, several) as (log, tracing):
            try:
                if several:
                    found = serve_by_fronts(
                        make, router, host, port, num_fronts=processes, command=command, grace_s=drain_s
                    )
                else:
                    found = serve(
                        file,
                        host,
                        port,
                        random=SystemRandom(),
                        started_at_s=time.time(),
                        request_timeout_s=request_timeout_s,
                        max_body_bytes=max_body_bytes,
                        grace_s=drain_s,
                        router=RemoteRouter(front) if front else router,
                        admission=admission,
                        keys=keys,
                        exact_prefixes=exact_prefixes,
                        access_log=log,
                        tracing=tracing,
                    )
                async with found as gateway_and_url:
                    _on_hang_up(keys, log, gateway_and_url[0])
                    _look_at(keys)
                    yield gateway_and_url
            except OSError as error:
                raise ConfigError(
                    f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port"
                ) from error

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_asked_to_stop(serving()))


def _on_hang_up(keys: Keys, log: AccessLog | None, gateway: Gateway) -> None:
    """Read the API keys again, and reopen the access log, here and in the fronts."""

    def hang_up() -> None:
        keys.reload(time.monotonic())
        if log is not None:
            log.reopen()
        gateway.hang_up_fronts()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)


def _look_at(keys: Keys) -> None:
    """Read the API keys again whenever their file has changed, while the loop runs."""
    asyncio.get_running_loop().call_later(_LOOK_S, _look_at, keys)
    keys.refresh(time.monotonic())


async def _until_asked_to_stop(serving: contextlib.AbstractAsyncContextManager[tuple[Gateway, str]]) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    async with serving as (gateway, url):
        logging.getLogger("baton.gateway").info("listening on %s", url)
        asked = asyncio.create_task(stop.wait())
        assert gateway.watching is not None, "serve starts it"
        await asyncio.wait([asked, gateway.watching], return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            gateway.watching.result()


@contextlib.asynccontextmanager
async def _observed(
    access_log: str, trace_endpoint: str, trace_fraction: float, by_fronts: bool
) -> AsyncIterator[tuple[AccessLog | None, Tracing | None]]:
    """The access log and the traces that were asked for, unless fronts write them; the rest is written at the end."""
    if by_fronts:
        yield None, None
        return
    log = AccessLog(access_log) if access_log else None
    tracing = None
    try:
        if trace_endpoint:
            tracing = open_tracing(
                trace_endpoint, SystemRandom(), fraction=trace_fraction, unix_s=time.time, clock_s=time.monotonic
            )
        yield log, tracing
    finally:
        for observer in (log, tracing):
            if observer is not None:
                await asyncio.to_thread(observer.close)
