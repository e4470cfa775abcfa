"""The answer to a question: the best candidates, the recipe as it stands, and what single changes would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from baton.plan import choices
from baton.plan.load import under_load
from baton.plan.pool import DoesNotFitError, Pool
from baton.plan.question import Question
from baton.plan.search import Candidate, Search, match, search
from baton.plan.setup import Setup
from baton.recipe.recipe import Role

Setups = tuple[Setup, Setup]
_UNDER_LOAD = 12
_TPOTS_MS = (10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200)


@dataclass(frozen=True, slots=True)
class Answer:
    """Candidates that serve the question, best first; `given`: the recipe's own; `fastest`: the best at any rate.

    misfits: of each role the sum of the largest setup that does not fit.
    """

    question: Question
    candidates: tuple[Candidate, ...]
    given: Candidate | None
    fastest: Candidate | None
    misfits: tuple[str, ...]


def answer(question: Question, given: Setups | None, *, all_settings: bool) -> Answer:
    """Search the question, from a recipe's settings or the usual ones; `all_settings`: limits, DBO, MTP and KV too."""
    found = _search(question, given, all_settings)
    enough = tuple(c for c in found.candidates if question.rate_per_s is None or c.rate_per_s >= question.rate_per_s)
    fastest = found.candidates[0] if found.candidates else None
    if question.ttft_s is not None and question.rate_per_s is None:
        # What a queue leaves of a rate is worked out for the best few: it takes 20 ms a candidate.
        enough = tuple(sorted(enough[:_UNDER_LOAD], key=lambda one: -under_load(one).rate_per_s))
    return Answer(question, enough, as_given(question, given) if given else None, fastest, found.misfits)


def as_given(question: Question, given: Setups) -> Candidate | None:
    """Return a recipe's own layout as a candidate; None if it does not fit the GPUs or is too slow."""
    if sum(setup.num_gpus for setup in given) > question.num_gpus:
        return None
    prefill, decode = (Pool(question, setup) for setup in given)
    return _match(prefill, decode, given[0].replicas, given[1].replicas)


def front(question: Question, given: Setups | None, *, all_settings: bool) -> list[Candidate]:
    """Return the best candidate at every limit on TPOT, those that another one beats left out."""
    kept: list[Candidate] = []
    for limit_ms in _TPOTS_MS:
        found = _search(replace(question, tpot_s=limit_ms / 1e3), given, all_settings).candidates[:1]
        if found and (not kept or found[0].tokens_per_s_per_gpu > kept[-1].tokens_per_s_per_gpu * 1.001):
            kept.append(found[0])
    return kept


def gains(best: Candidate) -> list[tuple[str, float | None]]:
    """Return single other settings with the share they would add, all else equal; None where one does not fit."""
    q, prefill, decode = best.question, best.prefill, best.decode
    changes = [
        *((f"prefill: {name}", Pool(q, setup), decode) for name, setup in choices.other_settings(prefill.setup)),
        *((f"decode: {name}", prefill, Pool(q, setup)) for name, setup in choices.other_settings(decode.setup)),
        *(
            (f"both: {name}", Pool(q, front), Pool(q, back))
            for name, front, back in choices.other_formats(q, prefill.setup, decode.setup)
        ),
    ]
    found: list[tuple[str, float | None]] = []
    for name, front, back in changes:
        other = _match(front, back, prefill.setup.replicas, decode.setup.replicas)
        found.append((name, other.tokens_per_s_per_gpu / best.tokens_per_s_per_gpu - 1 if other else None))
    return found


def _search(question: Question, given: Setups | None, all_settings: bool) -> Search:
    bases = given or (choices.usual(question, Role.PREFILL), choices.usual(question, Role.DECODE))
    prefill, decode = (_sizes(question, base, all_settings) for base in bases)
    return search(question, prefill, decode)


def _sizes(question: Question, base: Setup, all_settings: bool) -> Sequence[Setup]:
    sizes = list(choices.sizes(question, base))
    return [one for size in sizes for one in choices.limits(question, size)] if all_settings else sizes


def _match(prefill: Pool, decode: Pool, replicas: int, decode_replicas: int) -> Candidate | None:
    question = prefill.question
    try:
        prefill.check_fit(question.isl)
        decode.check_fit(question.isl + question.osl)
    except DoesNotFitError:
        return None
    return match(question, prefill, decode, replicas, decode_replicas)
