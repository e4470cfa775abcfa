"""Ports: adjacent, each once, and honest about who holds one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from baton.base.errors import ConfigError, WorkerError
from baton.local.ports import FIRST_PORT, LAST_PORT, Ports, first_port, gateway_port, is_free


def test_each_port_is_given_once() -> None:
    """Two engines never get the same port."""
    ports = Ports(lambda port: True, first=100, last=200)
    assert [ports.take(), ports.take(2), ports.take()] == [100, 101, 103]


def test_ranges_are_adjacent_over_gaps() -> None:
    """A range starts behind the last taken port that would break it."""
    ports = Ports(lambda port: port not in (100, 102, 105), first=100, last=200)
    assert ports.take() == 101
    assert ports.take(2) == 103
    assert ports.take(3) == 106


def test_deployments_begin_at_different_places(tmp_path: Path) -> None:
    """Two that start in the same second don't race for the same ports; one finds its own again."""
    places = {first_port(tmp_path / str(number)) for number in range(20)}
    assert len(places) > 15
    assert all(FIRST_PORT <= place < LAST_PORT - 900 for place in places)
    assert first_port(tmp_path / "1") == first_port(tmp_path / "1")


def test_running_out_is_an_error() -> None:
    """The last port may be given, one more may not."""
    ports = Ports(lambda port: True, first=100, last=101)
    assert ports.take(2) == 100
    with pytest.raises(WorkerError, match="no 1 adjacent free ports up to 101"):
        ports.take()


def test_a_taken_gateway_port_names_its_holder() -> None:
    """The message says which port, which process, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        with pytest.raises(ConfigError, match=rf"port {port} on 127.0.0.1 is taken by process {os.getpid()} .*--port"):
            gateway_port("127.0.0.1", port)
    assert gateway_port("127.0.0.1", port) == port


def test_port_zero_is_any_free_one() -> None:
    """0 becomes a real port, so that the address can be printed."""
    assert is_free("127.0.0.1", gateway_port("127.0.0.1", 0))
