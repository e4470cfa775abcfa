"""The floor of a P/D router in Python: bytes forwarded over both legs on kept connections, none of them understood.

What the kernel, the loop and the two system calls an event cost alone. The whole request goes to prefill as it came,
and when that has answered to decode, whose bytes go to the client; ranks take turns.

    python benchmarks/load/floor.py PORT PREFILL_PORT,PREFILL_PORT DECODE_PORT,DECODE_PORT
"""

import asyncio
import sys
from itertools import cycle
from typing import Any

import uvloop


class Leg(asyncio.Protocol):
    """One kept connection to an engine, lent to one client at a time."""

    client: "Client"

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.client.answered(data)


class Idle:
    """The kept connections to the engines of one role."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = cycle(ports)
        self.legs: dict[int, list[Leg]] = {port: [] for port in ports}

    async def connect(self, port: int) -> Leg:
        return (await asyncio.get_running_loop().create_connection(Leg, "127.0.0.1", port))[1]


class Client(asyncio.Protocol):
    """Takes one request at a time: only its length is looked at, as it comes in several pieces."""

    def __init__(self, roles: list[Idle]) -> None:
        self.roles = roles
        self.request = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.request += data
        head, end, body = self.request.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]):
            return
        self.is_stream = self.request.endswith(b'"stream":true}')
        self.num_legs = 0
        self.send()

    def send(self) -> None:
        role = self.roles[self.num_legs]
        self.port = next(role.ports)
        idle = role.legs[self.port]
        if idle:
            self.lend(idle.pop())
        else:
            connecting = asyncio.ensure_future(role.connect(self.port))
            connecting.add_done_callback(lambda done: self.lend(done.result()))

    def lend(self, leg: Leg) -> None:
        leg.client, self.leg = self, leg
        leg.transport.write(self.request)

    def answered(self, data: bytes) -> None:
        if self.num_legs:
            self.transport.write(data)
        if self.is_stream and not data.endswith(b"0\r\n\r\n"):
            return
        self.roles[self.num_legs].legs[self.port].append(self.leg)
        self.num_legs += 1
        if self.num_legs == 1:
            self.send()
        else:
            self.request = b""


async def serve(port: int, prefill_ports: list[int], decode_ports: list[int]) -> None:
    roles = [Idle(prefill_ports), Idle(decode_ports)]
    server = await asyncio.get_running_loop().create_server(lambda: Client(roles), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


def ports_of(text: str) -> list[int]:
    return [int(port) for port in text.split(",")]


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), ports_of(sys.argv[2]), ports_of(sys.argv[3])))
