"""`baton rehearse`: one rank of a deployment with real vLLM on one GPU (or the CPU), measured step by step."""

from __future__ import annotations

import datetime
import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from baton.base.errors import ConfigError
from baton.cli import files
from baton.cli.options import RecipePath, Settings
from baton.recipe.deployment import load_deployment
from baton.recipe.recipe import Role
from baton.rehearse.diagnosis import diagnose, slow_start
from baton.rehearse.grid import points
from baton.rehearse.one_rank import one_rank
from baton.rehearse.predicted import Predict, predictor
from baton.rehearse.result import calibration
from baton.rehearse.run import run


def rehearse(
    recipe: RecipePath,
    role: Annotated[Role, typer.Option(help="The role whose rank is rehearsed.")],
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Requests of a decode step; repeats.")] = None,
    length: Annotated[
        list[int] | None, typer.Option(min=16, help="Context of decode, or length of prefill's prompts; repeats.")
    ] = None,
    chunk: Annotated[list[int] | None, typer.Option(min=16, help="Tokens of a prefill step; repeats.")] = None,
    ep: Annotated[
        int | None, typer.Option(min=1, help="Ranks that share the experts, instead of the recipe's.")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Steps that are timed at each point.")] = 16,
    skew: Annotated[float, typer.Option(min=0, help="Zipf exponent of the routing; 0 is balanced.")] = 0.0,
    python: Annotated[str, typer.Option(help="Python that has vLLM.")] = sys.executable,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=10, help="Seconds for all of it, the start included.")
    ] = 900,
    write: Annotated[Path | None, typer.Option(help="Write a calibration file.")] = None,
    settings: Settings = None,
) -> None:
    """Run one rank's exact work (the recipe's flags, dummy weights, no other ranks) and time its steps.

    Exits with 1 if a point was not measured, and says which setting to change.
    """
    console = Console(highlight=False, soft_wrap=True)
    deployment = load_deployment(recipe, settings)
    with tempfile.TemporaryDirectory(prefix="baton-rehearse-") as temp:
        folder = Path(temp)
        rank = one_rank(deployment, role, folder / "model", ep_size=ep)
        layers = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
        engine = deployment.of_role(role)[0]
        grid = points(
            engine,
            deployment.model.max_model_len,
            batches=batch or [],
            lengths=length or [],
            chunks=chunk or [],
            steps=steps,
        )
        routing = {"kind": "zipf", "exponent": skew} if skew else {"kind": "balanced"}
        console.print(_head(deployment.model.name, role, rank.ep_size, rank.experts_held, rank.left_out))
        predict = predictor(deployment, role, rank.experts_held)
        job = {"argv": list(rank.argv), "points": grid, "routing": routing, "seed": 0}
        try:
            events, log = run(
                python,
                job,
                rank.env,
                folder,
                timeout_s=timeout_s,
                on_event=lambda event: _print(console, event, predict),
            )
        except OSError as error:
            raise ConfigError(f"--python {python!r}: cannot start it: {error.strerror}") from error
    found = calibration(
        deployment, rank, events, log, date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        routing=f"zipf {skew:g}" if skew else "balanced", num_layers=layers,
    )  # fmt: skip
    if write is not None and found is not None:
        files.replace(write, msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n")
    failed = next((event for event in events if event["event"] == "failed"), None)
    if failed is not None:
        typer.echo(f"baton rehearse: {diagnose(failed, log, role)}", err=True)
    if failed is not None or any(event["event"] == "skipped" for event in events):
        raise typer.Exit(1)


def _head(model: str, role: Role, ep_size: int, held: int, left_out: tuple[str, ...]) -> str:
    what = f"{model}, one {role} rank" + (f" of EP{ep_size}: {held} experts" if held else "")
    without = f"; left out, for want of other ranks: {', '.join(left_out)}" if left_out else ""
    return f"{what}, dummy weights, no all2all{without}"


def _print(console: Console, event: dict[str, Any], predict: Predict) -> None:
    if event["event"] == "starting":
        console.print(f"vLLM {event['vllm']}, PyTorch {event['torch']}, {event['gpu']}")
    elif event["event"] == "up":
        console.print(f"up after {event['seconds']:.0f} s; KV room for {event['kv_tokens']:,} tokens")
    elif event["event"] == "skipped":
        console.print(f"{_where(event)}: {event['reason']}")
    elif event["event"] == "point":
        rate = event["tokens_a_step"] / event["step_s"]
        quartiles = f"{event['p25_s'] * 1e3:.2f} to {event['p75_s'] * 1e3:.2f}"
        expected_s = predict(event)
        beside = f"; predicted {expected_s * 1e3:.2f} ms" if expected_s is not None else ""
        step_ms = event["step_s"] * 1e3
        console.print(f"{_where(event)}: {step_ms:.2f} ms a step ({quartiles}), {rate:,.0f} tokens/s{beside}")
        if note := slow_start(event):
            console.print(f"    {note}")


def _where(event: dict[str, Any]) -> str:
    if event["role"] == "decode":
        return f"decode, {event['batch']:>4} requests x {event['context']:>5} tokens"
    return f"prefill, {event['chunk']:>5} tokens of prompts of {event['isl']:>5}"
