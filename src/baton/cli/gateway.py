"""`baton gateway`: serve the workers of a file on one OpenAI-compatible address."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from pathlib import Path
from random import SystemRandom
from typing import Annotated

import typer
import uvloop

from baton.base.errors import ConfigError
from baton.gateway.app import serve
from baton.recipe.workers import load_workers


def gateway(
    workers: Annotated[Path, typer.Option(help="Workers file: url, role, dp ranks and NIXL port of every engine.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    request_timeout_s: Annotated[float, typer.Option(help="The one deadline of a request, seconds.")] = 600.0,
    max_body_bytes: Annotated[int, typer.Option(help="Largest request body.")] = 32 << 20,
    drain_s: Annotated[float, typer.Option(min=0, help="How long requests may go on after SIGTERM, seconds.")] = 10.0,
) -> None:
    """Serve running vLLM servers, baton's or anyone's, as one disaggregated deployment."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(workers, host, port, request_timeout_s, max_body_bytes, drain_s))


async def _serve(
    workers: Path, host: str, port: int, request_timeout_s: float, max_body_bytes: int, drain_s: float
) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    try:
        async with serve(
            load_workers(workers),
            host,
            port,
            random=SystemRandom(),
            started_at_s=time.time(),
            request_timeout_s=request_timeout_s,
            max_body_bytes=max_body_bytes,
            grace_s=drain_s,
        ) as (serving, url):
            logging.getLogger("baton.gateway").info("listening on %s", url)
            asked = asyncio.create_task(stop.wait())
            assert serving.watching is not None, "serve starts it"
            await asyncio.wait([asked, serving.watching], return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                serving.watching.result()
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from error
