"""Several gateway processes on one port: fronts, which serve requests, under one router process, which started them.

The kernel spreads connections over the fronts (SO_REUSEPORT). A front that ends by itself is started again; when the
router process ends, so do they.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Sequence

log = logging.getLogger("baton.gateway")

_AGAIN_S = 1.0


def reserved_port(host: str, port: int) -> socket.socket:
    """A port that fronts may share, kept until the socket is closed; 0 takes a free one.

    Raises   OSError when somebody else listens there, sharing or not
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with socket.socket(family, socket.SOCK_STREAM) as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind(address)  # without SO_REUSEPORT: fails where another deployment shares the port among its fronts
        address = alone.getsockname()
    shared = socket.socket(family, socket.SOCK_STREAM)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    shared.bind(address)
    return shared


class Fronts:
    """The processes of a command line, kept running."""

    def __init__(self, command: Sequence[str], num: int) -> None:
        self._command = command
        self._num = num
        self._running: set[asyncio.subprocess.Process] = set()
        self._stopping = False

    async def run(self) -> None:
        """Start all, and again whichever ends by itself; ends when cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for place in range(self._num):
                tasks.create_task(self._keep(place))

    def hang_up(self) -> None:
        """Pass SIGHUP on: the fronts have the access log open."""
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGHUP)

    async def stop(self, grace_s: float) -> None:
        """Ask every front to stop, and kill what has not after `grace_s`."""
        self._stopping = True
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        waiting = [asyncio.create_task(process.wait()) for process in self._running]
        if waiting:
            await asyncio.wait(waiting, timeout=grace_s)
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*waiting)

    async def _keep(self, place: int) -> None:
        while not self._stopping:
            process = await asyncio.create_subprocess_exec(*self._command)
            self._running.add(process)
            status = await process.wait()
            self._running.discard(process)
            if self._stopping:
                return
            log.error("front %d ended with status %d; it is started again", place, status)
            await asyncio.sleep(_AGAIN_S)
