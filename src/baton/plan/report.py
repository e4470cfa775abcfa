"""A plan on the terminal, as JSON, and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from baton.base.errors import ConfigError
from baton.perf.cost import Cost, shares, total_s
from baton.plan.answer import Answer, gains
from baton.plan.load import under_load
from baton.plan.search import Candidate, bound_per_gpu
from baton.plan.setup import MTP_ACCEPTANCE, Setup

_SHOWN = 5
_COLUMNS = (
    "",
    "prefill + decode",
    "tok/s/GPU",
    "68 %",
    "req/s",
    "prefill",
    "decode",
    "batch",
    "TPOT",
    "alone",
    "binds",
)
_LEGEND = """tok/s/GPU: output over all GPUs; 68 %: as the model's errors at published pools spread; prefill, decode:
tokens/s a GPU of that pool at its best; batch: requests a decode rank; TPOT, alone (TTFT without queues): ms"""


def as_json(candidate: Candidate) -> dict[str, Any]:
    """Return a candidate's numbers by name, with units in the names."""
    low, high = interval(candidate)
    return {
        "prefill": _setup(candidate.prefill.setup),
        "decode": _setup(candidate.decode.setup) | {"requests_a_rank": round(candidate.batch, 1)},
        "num_gpus": candidate.num_gpus,
        "requests_per_s": candidate.rate_per_s,
        "output_tokens_per_s_per_gpu": candidate.tokens_per_s_per_gpu,
        "output_tokens_per_s_per_gpu_interval": [low, high],
        "bound_tokens_per_s_per_gpu": bound_per_gpu(candidate),
        "prefill_tokens_per_s_per_prefill_gpu": candidate.prefill_tokens_per_s_per_gpu,
        "decode_tokens_per_s_per_decode_gpu": candidate.decode_tokens_per_s_per_gpu,
        "prefill_step_s": candidate.prefill.prefill_step_s(candidate.prefill.setup.max_num_batched_tokens),
        "prompt_alone_s": candidate.prompt_alone_s,
        "tpot_s": candidate.tpot_s,
        "under_load": asdict(under_load(candidate)),
        "binds": candidate.binds,
        "kv_room_tokens_a_decode_rank": candidate.decode.room.kv_tokens,
    }


def interval(candidate: Candidate) -> tuple[float, float]:
    """Return one standard deviation around the output rate, from the errors at pools the model was not fitted to."""
    spread = candidate.question.factors.spread[candidate.binds].value
    return candidate.tokens_per_s_per_gpu * math.exp(-spread), candidate.tokens_per_s_per_gpu * math.exp(spread)


def answer_as_json(found: Answer) -> dict[str, Any]:
    """Return an answer whole: question, candidates, ledgers of the best, gains, what does not fit."""
    q, best = found.question, found.candidates[0]
    shown, names = _shown(found)
    return {
        "model": q.model.name,
        "accelerator": q.accelerator,
        "num_gpus": q.num_gpus,
        "isl": q.isl,
        "osl": q.osl,
        "hit_rate": q.hit_rate,
        "tpot_limit_s": q.tpot_s,
        "rate_per_s": q.rate_per_s,
        "rehearsed": q.rehearsed._asdict(),
        "as_given": as_json(found.given) if found.given else None,
        "best": [as_json(one) for one in found.candidates[:_SHOWN]],
        "prefill_step": [asdict(cost) for cost in best.prefill.prefill_costs()],
        "decode_step": [asdict(cost) for cost in best.decode.decode_costs(best.batch)],
        "gains": dict(gains(best)),
        "notes": notes(shown, names),
        "does_not_fit": list(found.misfits),
    }


def print_answer(found: Answer, *, explain: bool) -> None:
    """Print an answer: the table, what limits the best, what single changes would do, what does not fit."""
    console, q, best = _console(), found.question, found.candidates[0]
    limit = f", TPOT at most {q.tpot_s * 1e3:g} ms" if q.tpot_s else ""
    cached = f", {q.hit_rate:.0%} of prompt tokens cached" if q.hit_rate else ""
    console.print(f"{q.model.name} on {q.num_gpus} {q.accelerator}: {q.isl:g} tokens in, {q.osl:g} out{limit}{cached}")
    console.print("Predicted, not measured.\n")
    shown, names = _shown(found)
    print_candidates(console, shown, names)
    print_loads(console, shown, names)
    for note in notes(shown, names):
        console.print(f"\n{note}")
    base = found.given or best
    bound, most = bound_per_gpu(base), base.tokens_per_s_per_gpu
    if found.given:
        console.print(f"\nthe best is {best.tokens_per_s_per_gpu / most:.2f} x as given", end="")
    console.print(
        f"\n{'as given' if found.given else 'the first'} split in any proportion: {bound:,.0f}, {bound / most:.2f} x"
    )
    console.print(f"prefill is limited by {limits(best.prefill.prefill_costs())}")
    console.print(f"decode is limited by {limits(best.decode.decode_costs(best.batch))}\n")
    for name, gain in gains(best):
        console.print(f"{gain:+5.0%}  {name}" if gain is not None else f" none  {name}: does not fit")
    for misfit in found.misfits:
        console.print(f"\n{misfit}", style="dim")
    if explain:
        print_ledger(console, "\nprefill step", best.prefill.prefill_costs())
        print_ledger(console, "\ndecode step", best.decode.decode_costs(best.batch))


def _shown(found: Answer) -> tuple[list[Candidate], list[str]]:
    """What is shown, the recipe as given first, and the rows' names."""
    best = found.candidates[:_SHOWN]
    names = [str(place) for place in range(1, len(best) + 1)]
    return ([found.given, *best], ["as given", *names]) if found.given else (list(best), names)


def notes(candidates: Sequence[Candidate], names: Sequence[str]) -> list[str]:
    """Return what of these candidates changes answers, or rests on a guess about them, with the rows that do it."""
    layouts = [one.decode.setup.layout for one in candidates]
    rounded = [name for name, layout in zip(names, layouts, strict=True) if layout.kv_dtype == "fp8"]
    drafted = [name for name, layout in zip(names, layouts, strict=True) if layout.mtp_tokens]
    found = []
    if rounded:
        found.append(
            f"KV cache in fp8 ({', '.join(rounded)}): keys and values are rounded and answers change: evaluate the "
            "model with it before serving"
        )
    if drafted:
        found.append(
            f"MTP ({', '.join(drafted)}): {MTP_ACCEPTANCE:.0%} of drafts accepted is assumed: measure it on your "
            "prompts; the model checks every draft, but sums of other shapes can change a word"
        )
    return found


def print_candidates(console: Console, candidates: Sequence[Candidate], names: Sequence[str]) -> None:
    """Print a table, a candidate a row."""
    table = Table(box=None, pad_edge=False)
    for header in _COLUMNS:
        side = "left" if header in ("", "prefill + decode", "binds") else "right"
        table.add_column(header, justify=side, no_wrap=True)  # type: ignore[arg-type]
    for name, one in zip(names, candidates, strict=True):
        low, high = interval(one)
        table.add_row(
            name,
            f"{one.prefill.setup.describe()} + {one.decode.setup.describe()}",
            f"{one.tokens_per_s_per_gpu:,.0f}",
            f"{low:,.0f}-{high:,.0f}",
            f"{one.rate_per_s:.1f}",
            f"{one.prefill_tokens_per_s_per_gpu:,.0f}",
            f"{one.decode_tokens_per_s_per_gpu:,.0f}",
            f"{one.batch:.0f}",
            f"{one.tpot_s * 1e3:.1f}",
            f"{one.prompt_alone_s * 1e3:.0f}",
            one.binds,
        )
    console.print(table)
    console.print(_LEGEND, style="dim")


def print_loads(console: Console, candidates: Sequence[Candidate], names: Sequence[str]) -> None:
    """Print what requests see of each candidate, queues included."""
    q = candidates[0].question
    if q.rate_per_s is not None:
        title = f"at {q.rate_per_s:g} requests/s"
    elif q.ttft_s is not None:
        title = f"at the most that TTFT within {q.ttft_s:g} s allows (p{q.percentile})"
    else:
        title = "at 90 % of those rates"
    console.print(f"\n{title}, queues included:")
    table = Table(box=None, pad_edge=False)
    for header in ("", "tok/s/GPU", "req/s", "TTFT p50", "p90", "p99 s", "TPOT p50", "p90", "p99 ms", "limit"):
        table.add_column(header, justify="left" if header in ("", "limit") else "right", no_wrap=True)
    for name, one in zip(names, candidates, strict=True):
        load = under_load(one)
        ttft, tpot = load.ttft_s, load.tpot_s
        table.add_row(
            name,
            f"{load.tokens_per_s_per_gpu:,.0f}",
            f"{load.rate_per_s:.1f}",
            *(f"{value:.2f}" for value in (ttft.p50_s, ttft.p90_s, ttft.p99_s)),
            *(f"{value * 1e3:.1f}" for value in (tpot.p50_s, tpot.p90_s, tpot.p99_s)),
            load.limit,
        )
    console.print(table)


def print_comparison(candidates: Sequence[Candidate], names: Sequence[str]) -> None:
    """Print two candidates beside each other, and the terms in which their steps differ most."""
    console = _console()
    print_candidates(console, candidates, names)
    a, b = candidates
    _print_differences(console, "prefill, microseconds a token of a GPU", _prefill_us(a), _prefill_us(b))
    _print_differences(console, "decode, milliseconds a step", _decode_ms(a), _decode_ms(b))


def _print_differences(console: Console, title: str, a: dict[str, float], b: dict[str, float]) -> None:
    console.print(f"\n{title}: {sum(a.values()):.2f} and {sum(b.values()):.2f}, of which")
    names = sorted({**a, **b}, key=lambda name: -abs(b.get(name, 0.0) - a.get(name, 0.0)))
    for name in names[:_SHOWN]:
        mine, theirs = a.get(name, 0.0), b.get(name, 0.0)
        console.print(f"{theirs - mine:+8.2f}  {name} ({mine:.2f} and {theirs:.2f})")


def _prefill_us(one: Candidate) -> dict[str, float]:
    setup = one.prefill.setup
    tokens = setup.max_num_batched_tokens / setup.layout.tp_size
    return {cost.name: cost.time_s / tokens * 1e6 for cost in one.prefill.prefill_costs()}


def _decode_ms(one: Candidate) -> dict[str, float]:
    return {cost.name: cost.time_s * 1e3 for cost in one.decode.decode_costs(one.batch)}


def _console() -> Console:
    """A terminal as wide as it is; a file or a pipe as wide as the table."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=140)


def limits(costs: Sequence[Cost], most: int = 4) -> str:
    """Return what limits a step: "attention core 39 %, routed experts, up 17 %"."""
    return ", ".join(f"{cost.name} {share:.0%}" for cost, share in shares(costs)[:most])


def print_ledger(console: Console, title: str, costs: Sequence[Cost]) -> None:
    """Print a step term by term; the parts sum to the whole."""
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for header in ("term", "ms", "share", "limited by", "how it comes about"):
        table.add_column(header, justify="right" if header in ("ms", "share") else "left", overflow="fold")
    whole = total_s(costs)
    for cost in costs:
        table.add_row(cost.name, f"{cost.time_s * 1e3:.2f}", f"{cost.time_s / whole:.1%}", cost.limit, cost.reason)
    table.add_row("step", f"{whole * 1e3:.2f}", "100.0%", "", "the sum")
    console.print(table)


def draw(path: Path, front: Sequence[Candidate], marks: Sequence[tuple[str, Candidate]]) -> None:
    """Write a PNG of output tokens a second a GPU over tokens a second a user: the front, and single candidates on it.

    Raises ConfigError without matplotlib, or where it cannot be written.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - of the extra `plan`
    except ImportError as error:
        raise ConfigError("--picture needs matplotlib: pip install 'baton[plan]'") from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    users, rates = [1 / one.tpot_s for one in front], [one.tokens_per_s_per_gpu for one in front]
    axes.plot(users, rates, marker=".", label="best of every split")
    for name, one in marks:
        axes.plot(1 / one.tpot_s, one.tokens_per_s_per_gpu, "o", markersize=9, label=name)
    axes.set_xlabel("tokens/s a user (1 / TPOT)")
    axes.set_ylabel("output tokens/s per GPU of the whole deployment")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path, format="png", dpi=120)
    except OSError as error:
        raise ConfigError(f"--picture {path}: cannot write it: {error.strerror}") from error


def _setup(setup: Setup) -> dict[str, Any]:
    layout = setup.layout
    return {
        "replicas": setup.replicas,
        "gpus_per_replica": layout.num_gpus,
        "nodes_per_replica": setup.nodes,
        "dp_size": layout.dp_size,
        "tp_size": layout.tp_size,
        "ep_size": layout.ep_size,
        "weight_dtype": layout.weight_dtype,
        "kv_dtype": layout.kv_dtype,
        "all2all": layout.all2all,
        "eplb": layout.has_eplb,
        "num_redundant_experts": layout.num_redundant_experts,
        "dbo": layout.has_overlap,
        "mtp_tokens": layout.mtp_tokens,
        "max_num_seqs": setup.max_num_seqs,
        "max_num_batched_tokens": setup.max_num_batched_tokens,
    }
