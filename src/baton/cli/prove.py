"""`baton prove`: is a deployment really disaggregated, and are its tokens right?"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from random import SystemRandom
from typing import Annotated, Literal, TypeAlias

import typer
from pydantic import ValidationError
from rich.console import Console

from baton.base.errors import ConfigError
from baton.cli.machine import Name, StateDir, pick_run, state_root
from baton.gateway.app import serve
from baton.prove.report import print_verdict
from baton.prove.run import prove_deployment
from baton.prove.verdict import Verdict
from baton.recipe.recipe import Gateway, Role
from baton.recipe.workers import Worker, WorkersFile, load_workers

Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]


def prove(
    workers: Annotated[Path | None, typer.Option(help="Workers file of the deployment.")] = None,
    prefill: Annotated[list[str] | None, typer.Option(help="URL of a prefill server; may be repeated.")] = None,
    decode: Annotated[list[str] | None, typer.Option(help="URL of a decode server; may be repeated.")] = None,
    gateway: Annotated[str | None, typer.Option(help="URL of a baton gateway; one is started when not given.")] = None,
    model: Annotated[str | None, typer.Option(help="Served model name, with --prefill and --decode.")] = None,
    dp_size: Annotated[int, typer.Option(help="Data-parallel ranks behind each URL, with --prefill and --decode.")] = 1,
    dtype: Annotated[Dtype, typer.Option(help="Number format of the computation.")] = "float32",
    checkpoint: Annotated[Path | None, typer.Option(help="Folder with the model's config.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
    state_dir: StateDir = None,
    name: Name = None,
) -> None:
    """Prove the running deployment, or any vLLM servers given by file or by URL. Exit code 0 only when PROVEN."""
    if workers is not None:
        found = load_workers(workers)
    elif prefill or decode:
        found = _attached(prefill or [], decode or [], model, dp_size, dtype)
    else:
        found, gateway = _running(state_dir, name)
    if checkpoint is not None:
        found = found.model_copy(update={"checkpoint": checkpoint})
    verdict = asyncio.run(_prove(found, gateway))
    if as_json:
        typer.echo(json.dumps(verdict.to_json(), indent=2))
    else:
        print_verdict(Console(), verdict)
    raise typer.Exit(0 if verdict.proven else 1)


async def _prove(workers: WorkersFile, gateway: str | None) -> Verdict:
    if gateway is not None:
        return await prove_deployment(workers, gateway, random=SystemRandom())
    usual = Gateway()
    async with serve(
        workers,
        "127.0.0.1",
        0,
        random=SystemRandom(),
        started_at_s=time.time(),
        request_timeout_s=usual.request_timeout_s,
        max_body_bytes=usual.max_body_bytes,
    ) as (_, url):
        return await prove_deployment(workers, url, random=SystemRandom())


def _running(state_dir: Path | None, name: str | None) -> tuple[WorkersFile, str]:
    run = pick_run(state_root(state_dir), name)
    state = run.read_state() if run is not None and run.owner() is not None else None
    if state is None:
        raise ConfigError(
            "nothing is running here; start it with `baton up`, or name servers: --workers, or --prefill and --decode"
        )
    return load_workers(state.workers_file), state.gateway_url


def _attached(prefill: list[str], decode: list[str], model: str | None, dp_size: int, dtype: Dtype) -> WorkersFile:
    if model is None:
        raise ConfigError("--prefill and --decode need --model, the name the servers serve (see their /v1/models)")
    try:
        found = [
            Worker(name=f"{role}-{i}", role=role, url=url, dp_ranks=tuple(range(dp_size)))
            for role, urls in ((Role.PREFILL, prefill), (Role.DECODE, decode))
            for i, url in enumerate(urls)
        ]
        return WorkersFile(model=model, workers=tuple(found), dtype=dtype)
    except ValidationError as error:
        raise ConfigError("; ".join(fault["msg"] for fault in error.errors(include_url=False))) from error
