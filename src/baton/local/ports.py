"""Free TCP ports on this machine, and who holds one that is not.

Engines get ports below the range the kernel hands to outgoing connections (32768 up on Linux), so that a port that was
free at the start is still free when a crashed engine starts again.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import psutil

from baton.base.errors import ConfigError, WorkerError

FIRST_PORT = 21000
LAST_PORT = 32000


def first_port(folder: Path) -> int:
    """Where the search begins for the deployment in `folder`: another place for each.

    Two deployments started in the same second would both find the same ports free.
    """
    seed = int.from_bytes(hashlib.sha256(os.fsencode(folder.resolve())).digest()[:4], "big")
    return FIRST_PORT + seed % 500 * 20


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


class Ports:
    """Hands out ports, each once.

    `free` says whether a port can be had; the next search starts behind the last port given.
    """

    def __init__(self, free: Callable[[int], bool], *, first: int = FIRST_PORT, last: int = LAST_PORT) -> None:
        self._free = free
        self._next = first
        self._last = last

    def take(self, count: int = 1) -> int:
        """First of `count` adjacent free ports.

        Raises   WorkerError when there are none left
        """
        start = port = self._next
        while port - start < count:
            if port > self._last:
                raise WorkerError(f"no {count} adjacent free ports up to {self._last}; end what listens on so many")
            port += 1
            if not self._free(port - 1):
                start = port
        self._next = port
        return start


def gateway_port(host: str, port: int, *, free: Callable[[str, int], bool] = is_free) -> int:
    """The port the gateway shall listen on; 0 = any free one.

    Raises   ConfigError naming the port, what holds it, and what to do
    """
    if port == 0:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
            return int(probe.getsockname()[1])
    if not free(host, port):
        raise ConfigError(
            f"port {port} on {host} is taken{_by_whom(port)}; end that, or choose another: `baton up --port "
            f"{port + 1}` (0 = any free one), or gateway.port in the recipe"
        )
    return port


def _by_whom(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                command = " ".join(psutil.Process(connection.pid).cmdline())
                return f" by process {connection.pid} ({command[:80]})"
    except (psutil.Error, OSError):
        pass
    return ""
