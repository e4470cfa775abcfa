"""`baton plan`: the layouts that serve a workload best on given GPUs, what they will do, and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from baton.base.errors import ConfigError
from baton.catalogue.model import load_model, name_of
from baton.cli import files
from baton.perf.step_time import AS_PREDICTED
from baton.plan import report
from baton.plan.answer import Answer, Setups, answer, as_given, front
from baton.plan.calibrations import read_calibrations
from baton.plan.question import Question, read_duration_s, read_gpus
from baton.plan.recipe_file import recipe_text, settings
from baton.plan.setup import setup_of
from baton.plan.trace import read_trace
from baton.recipe.deployment import load_deployment
from baton.recipe.overrides import read_text
from baton.recipe.recipe import Role


def plan(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="Recipe to start from: its model, GPUs and settings.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model of the catalogue, such as deepseek-r1.")] = None,
    gpus: Annotated[str | None, typer.Option(help="How many of which GPU: 32xH200, 16xGB200.")] = None,
    isl: Annotated[float | None, typer.Option(min=1, help="Prompt tokens of a request.")] = None,
    osl: Annotated[float | None, typer.Option(min=1, help="Output tokens of a request.")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Trace in Mooncake's format: lengths, rate and shared prefixes.")
    ] = None,
    ttft: Annotated[str | None, typer.Option(help="Limit on the time to the first token: 2s.")] = None,
    tpot: Annotated[str | None, typer.Option(help="Limit on the time per output token: 50ms.")] = None,
    rate: Annotated[float | None, typer.Option(min=0, help="Requests a second that must be served.")] = None,
    percentile: Annotated[int, typer.Option(help="Percentile that --ttft is held at: 50, 90 or 99.")] = 50,
    max_goodput: Annotated[
        bool,
        typer.Option("--max-goodput", help="The most requests within --ttft and --tpot: what is asked without --rate."),
    ] = False,
    hit_rate: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of prompt tokens found in prefill's cache.")
    ] = 0.0,
    all_settings: Annotated[
        bool, typer.Option("--all-settings", help="Search chunks, batches, DBO, MTP and KV dtype too.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the ledger of a prefill and a decode step of the best.")
    ] = False,
    compare: Annotated[
        Path | None, typer.Option(help="Another recipe: say where it differs from RECIPE, and why.")
    ] = None,
    write: Annotated[Path | None, typer.Option(help="Write the best as a recipe that baton check passes.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Write the Pareto front as a PNG.")] = None,
    calibration: Annotated[
        list[Path] | None, typer.Option(help="What `baton rehearse --write` measured on such a GPU; may repeat.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Predict the best prefill and decode layouts for a workload on given GPUs.

    Exits with 1 if nothing fits, is within --tpot, or serves --rate.
    """
    if max_goodput and (rate is not None or ttft is None):
        raise ConfigError("--max-goodput is the most requests a second within limits: give --ttft, and no --rate")
    question, given = _question(recipe, model, gpus, isl, osl, trace, tpot, rate, hit_rate)
    question = _with_ttft(question, ttft, percentile)
    measured, lines = read_calibrations(calibration or (), question)
    question = replace(question, rehearsed=measured)
    for line in lines:
        typer.echo(line, err=True)
    if compare is not None:
        _compare(question, recipe, given, compare)
        return
    found = answer(question, given, all_settings=all_settings)
    if not found.candidates:
        _refuse(found)
    if as_json:
        typer.echo(json.dumps(report.answer_as_json(found), indent=2))
    else:
        report.print_answer(found, explain=explain)
    best = found.candidates[0]
    if picture is not None:
        marks = [("planned", best), *([("as given", found.given)] if found.given else [])]
        report.draw(picture, front(question, given, all_settings=all_settings), marks)
    if write is not None:
        name = f"{question.model.name.lower()}-{question.num_gpus}x{question.accelerator}"[:40].rstrip("-")
        text = recipe_text(best, name) if recipe is None else read_text(recipe, settings(best))
        files.replace(write, text)


def _question(
    recipe: Path | None,
    model: str | None,
    gpus: str | None,
    isl: float | None,
    osl: float | None,
    trace: Path | None,
    tpot: str | None,
    rate: float | None,
    hit_rate: float,
) -> tuple[Question, Setups | None]:
    """What is asked, and the setups of the recipe if there is one."""
    given, name, count, accelerator = None, model, 0, ""
    mix, cv2 = None, 1.0
    if recipe is not None:
        deployment = load_deployment(recipe)
        given = setup_of(deployment, Role.PREFILL), setup_of(deployment, Role.DECODE)
        name = name or name_of(deployment.model.name)
        count, accelerator = sum(setup.num_gpus for setup in given), deployment.hardware.accelerator
    if gpus is not None:
        count, accelerator = read_gpus(gpus)
    if name is None or not count:
        raise ConfigError(
            "baton plan: give a RECIPE, or --model and --gpus, such as --model deepseek-r1 --gpus 32xH200"
        )
    if trace is not None:
        found = read_trace(trace)
        mix, cv2 = (found.mix, found.arrival_cv2) if isl is None and osl is None else (None, found.arrival_cv2)
        isl, osl, rate, hit_rate = (
            isl or found.isl,
            osl or found.osl,
            rate or found.rate_per_s,
            hit_rate or found.hit_rate,
        )
    if isl is None or osl is None:
        raise ConfigError("baton plan: give --isl and --osl, or a --trace to take them from")
    question = Question(
        model=load_model(name),
        accelerator=accelerator,
        num_gpus=count,
        isl=isl,
        osl=osl,
        rate_per_s=rate,
        hit_rate=hit_rate,
        mix=mix,
        arrival_cv2=cv2,
        tpot_s=read_duration_s("--tpot", tpot) if tpot is not None else None,
    )
    return question, given


def _with_ttft(question: Question, ttft: str | None, percentile: int) -> Question:
    if percentile not in (50, 90, 99):
        raise ConfigError(f"--percentile {percentile}: give 50, 90 or 99")
    return replace(question, percentile=percentile, ttft_s=read_duration_s("--ttft", ttft) if ttft else None)


def _compare(question: Question, recipe: Path | None, given: Setups | None, other: Path) -> None:
    """Two recipes side by side: their numbers, then the terms in which their steps differ most."""
    if recipe is None or given is None:
        raise ConfigError("--compare needs two recipes: baton plan A.yaml --compare B.yaml --isl 2000 --osl 2000")
    deployment = load_deployment(other)
    theirs = setup_of(deployment, Role.PREFILL), setup_of(deployment, Role.DECODE)
    num_gpus, accelerator = sum(setup.num_gpus for setup in theirs), deployment.hardware.accelerator
    pair = []
    for path, setups, asked in (
        (recipe, given, question),
        (other, theirs, _on_other_gpus(question, accelerator, num_gpus)),
    ):
        found = as_given(asked, setups)
        if found is None:
            raise ConfigError(f"{path}: it has no room for this workload or is slower than --tpot; baton plan says why")
        pair.append(found)
    report.print_comparison(pair, [str(recipe), str(other)])


def _on_other_gpus(question: Question, accelerator: str, num_gpus: int) -> Question:
    """The same question of other GPUs; what was rehearsed on one kind says nothing of another."""
    measured = question.rehearsed if accelerator == question.accelerator else AS_PREDICTED
    return replace(question, accelerator=accelerator, num_gpus=num_gpus, rehearsed=measured)


def _refuse(found: Answer) -> None:
    for misfit in found.misfits:
        typer.echo(misfit, err=True)
    question, fastest = found.question, found.fastest
    if fastest is None:
        why = "no layout fits these GPUs within --tpot: give more GPUs, a smaller number format, or a larger --tpot"
    else:
        why = (
            f"--rate {question.rate_per_s:g}: the best layout serves {fastest.rate_per_s:.2f} requests/s: "
            "give more GPUs, a larger --tpot, or a lower rate"
        )
    typer.echo(f"baton plan: {why}", err=True)
    raise typer.Exit(1)
