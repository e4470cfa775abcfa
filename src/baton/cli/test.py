"""`baton test`: does a deployment answer the request of the recipe, and does the answer add up?"""
# ruff: noqa: PT028 - `test` is a verb here, with options that have defaults

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from baton.base.errors import ConfigError
from baton.cli.options import Settings
from baton.engine.origin import Origin
from baton.prove.request import Outcome, send_request
from baton.recipe.recipe import TestRequest, load_recipe


def test(
    url: Annotated[str, typer.Option(help="Where the deployment serves: http://localhost:8000.")],
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="Recipe whose model and test section are used.")
    ] = None,
    settings: Settings = None,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Limit of each exchange, seconds.")] = 300.0,
) -> None:
    """Send one chat request, whole and streamed: check status, content, usage and how it ends.

    Exits 0 when every check holds, 1 when one does not, 2 for a URL or a recipe that won't do. It asks what a client
    would; `baton prove` shows that the work is really split.
    """
    origin = _origin(url)
    model, request = _request(recipe, settings)
    outcome = asyncio.run(send_request(origin, request, model, timeout_s=timeout_s))
    _print(outcome)
    if not outcome.ok and outcome.checks[-1].name == "models: status":
        print(f"nothing more was asked: is a deployment's gateway at {url}, and `kubectl port-forward` running?")
    raise typer.Exit(0 if outcome.ok else 1)


def _origin(url: str) -> Origin:
    if url.lower().startswith("https:"):
        raise ConfigError(
            f"--url {url!r}: baton speaks plain http, there is no TLS; forward the Service's port "
            "(kubectl port-forward service/NAME 8000) and give --url http://localhost:8000"
        )
    try:
        return Origin.parse(url)
    except ConfigError as error:
        raise ConfigError(f"--url {url!r}: expected http://HOST[:PORT], without /v1 or any other path") from error


def _request(recipe: Path | None, settings: list[str] | None) -> tuple[str | None, TestRequest]:
    if recipe is None:
        if settings:
            raise ConfigError("--set changes fields of a recipe; give the recipe too")
        return None, TestRequest()
    found = load_recipe(recipe, settings)
    return found.model.name, found.test


def _print(outcome: Outcome) -> None:
    width = max(len(check.name) for check in outcome.checks)
    for check in outcome.checks:
        wanted = "" if check.ok else f" (expected {check.expected})"
        print(f"{'holds' if check.ok else 'FAILS'}  {check.name:<{width}}  {_printable(check.found)}{wanted}")
    if outcome.answer:
        print(f"\n{_printable(outcome.answer).strip()}")


def _printable(text: str) -> str:
    """Text that is safe on a terminal, whoever wrote it."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
