"""The router process, with its fronts: the gateway when one core is not enough."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from baton.engine.client import HttpClient
from baton.gateway.app import Gateway
from baton.gateway.fronts import Fronts, reserved_port
from baton.gateway.router_service import RouterService
from baton.policy.routing import Router

_EXIT_S = 5.0
"""Beyond the grace that requests have, until a front is killed."""


@contextlib.asynccontextmanager
async def serve_by_fronts(
    make: Callable[[HttpClient, Router], Gateway],
    router: Router,
    host: str,
    port: int,
    *,
    num_fronts: int,
    command: Callable[[int, str], Sequence[str]],
    grace_s: float,
) -> AsyncIterator[tuple[Gateway, str]]:
    """Run the router process and its fronts while the block runs; gives a gateway that listens nowhere, and the URL.

    A front listens when it knows which pairs may serve; until then connections are refused.

    make      the gateway whose pool and metrics are used here
    command   of a front, given the port and the router's socket
    grace_s   how long requests may go on after the block has ended
    Raises    OSError when the address cannot be had
    """
    client = HttpClient(connect_timeout_s=5.0)
    gateway = make(client, router)
    service = RouterService(router, gateway.pool, gateway.door, gateway.routes, gateway.metrics_text)
    with tempfile.TemporaryDirectory(prefix="baton-") as folder, reserved_port(host, port) as reserved:
        path = str(Path(folder) / "router")
        bound_host, bound_port = reserved.getsockname()[:2]
        listener = await service.start(path)
        fronts = Fronts(command(bound_port, path), num_fronts)
        gateway.hang_up_fronts = fronts.hang_up
        gateway.watching = asyncio.create_task(_run(gateway, fronts))
        try:
            shown = f"[{bound_host}]" if ":" in bound_host else bound_host
            yield gateway, f"http://{shown}:{bound_port}"
        finally:
            await fronts.stop(grace_s + _EXIT_S)
            gateway.watching.cancel()
            await asyncio.wait([gateway.watching])
            listener.close()
            client.close()


async def _run(gateway: Gateway, fronts: Fronts) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(gateway.run())
        tasks.create_task(fronts.run())
