"""`baton engine stand-in`: a server that speaks vLLM's wire and has no model."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
from random import Random
from typing import Annotated

import msgspec
import typer
import uvloop

from baton.base.errors import ConfigError
from baton.engine.stand_in.arguments import read_arguments
from baton.engine.stand_in.config import StandInConfig, StepTime
from baton.engine.stand_in.faults import read_faults
from baton.engine.stand_in.server import StandIn

engine = typer.Typer(add_completion=False, help="Engines for load, faults and scale.", callback=lambda: None)


@engine.command("stand-in", context_settings={"ignore_unknown_options": True})
def stand_in(
    words: Annotated[list[str], typer.Argument(metavar="serve MODEL [VLLM'S FLAGS]...", help="As vLLM would get it.")],
    engine_version: Annotated[str, typer.Option(help="The vLLM release to speak for.")] = "0.32.0",
    step_time: Annotated[
        str, typer.Option(help='Seconds of a step, as JSON, such as {"base_s": 0.02, "per_prefill_token_s": 1.4e-4}.')
    ] = "{}",
    speed: Annotated[float, typer.Option(help="Steps and transfers take their seconds divided by this.")] = 1.0,
    faults: Annotated[str, typer.Option(help='Faults from the start, as JSON, such as {"slow": 3}.')] = "{}",
    seed: Annotated[int, typer.Option(help="Of ids that clients do not give.")] = 0,
) -> None:
    """Serve as vLLM does, with neither model nor GPU: real sockets, schedules and KV hand-off, text without sense."""
    steps = _steps(step_time)
    config, host, port = read_arguments(words, os.environ, engine_version, step_time=steps, speed=speed)
    sys.exit(uvloop.run(_serve(config, host, port, read_faults(faults.encode()), seed)))


def _steps(text: str) -> StepTime:
    fields = [field.name for field in dataclasses.fields(StepTime)]
    try:
        steps = msgspec.json.decode(text, type=StepTime)
        unknown = sorted(msgspec.json.decode(text, type=dict[str, float]).keys() - set(fields))
    except msgspec.DecodeError as error:
        raise ConfigError(f"--step-time {text!r}: {error}; fields: {', '.join(fields)}") from error
    if unknown:
        raise ConfigError(f"--step-time has no field {', '.join(unknown)}; fields: {', '.join(fields)}")
    return steps


async def _serve(config: StandInConfig, host: str, port: int, faults: dict[str, object], seed: int) -> int:
    """The exit status: 1 when it died of a fault."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def end(status: int) -> None:
        if not ended.done():
            ended.set_result(status)

    server = StandIn(config, random=Random(seed), died=lambda: end(1))
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, end, 0)
    await server.start(host, port)
    server.set_faults(**faults)
    print(f"baton: stand-in for vLLM {config.version} on http://{host}:{server.port}", flush=True)
    try:
        return await ended
    finally:
        await server.close()
