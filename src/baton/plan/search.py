"""The search: every pair of prefill and decode setups that fits the GPUs, rate-matched, and the best of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from baton.perf.layout import Layout
from baton.perf.transfer import transfer_s
from baton.plan.pool import DoesNotFitError, Pool
from baton.plan.question import Question
from baton.plan.setup import Setup
from baton.recipe.recipe import Role

_KEPT = 64
"""candidates that a search hands on"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prefill and a decode pool, and what they serve together with `batch` requests a decode rank."""

    prefill: Pool
    decode: Pool
    batch: float
    rate_per_s: float

    @property
    def num_gpus(self) -> int:
        """GPUs of both pools."""
        return self.prefill.setup.num_gpus + self.decode.setup.num_gpus

    @property
    def question(self) -> Question:
        """What was asked."""
        return self.prefill.question

    @property
    def tokens_per_s_per_gpu(self) -> float:
        """Output tokens a second over all GPUs that were given, used or not."""
        return self.rate_per_s * self.question.osl / self.question.num_gpus

    @property
    def tpot_s(self) -> float:
        """Seconds an output token, with as many requests as the rate keeps in decode."""
        return self.decode.tpot_s(self.batch)

    @property
    def prefill_tokens_per_s_per_gpu(self) -> float:
        """Prompt tokens a second a prefill GPU can do."""
        return self.prefill.prompts_per_s * self.question.isl / self.prefill.setup.layout.num_gpus

    @property
    def decode_tokens_per_s_per_gpu(self) -> float:
        """Output tokens a second a decode GPU can do within the limit on TPOT."""
        most = self.decode.batch_at(self.question.tpot_s)
        return self.decode.answers_per_s(most) * self.question.osl / self.decode.setup.layout.num_gpus

    @property
    def prompt_alone_s(self) -> float:
        """Seconds to the first token of a prompt that finds the prefill pool empty, hand-off included: no queue."""
        q, pool = self.question, self.prefill
        new, chunk = q.isl * (1 - q.hit_rate), pool.setup.max_num_batched_tokens
        steps = max(1, math.ceil(new / chunk))
        return (
            steps * pool.prefill_step_s(new / steps)
            + transfer_s(pool.rank, q.isl)
            + self.decode.decode_step_s(self.batch)
        )

    @property
    def binds(self) -> str:
        """The pool that has nothing to spare."""
        prefill = self.prefill.prompts_per_s * self.prefill.setup.replicas
        return "prefill" if prefill <= self.rate_per_s * 1.0001 else "decode"


@dataclass(frozen=True, slots=True)
class Search:
    """What a search found: candidates, best first; of each role the sum of the largest setup that does not fit."""

    candidates: tuple[Candidate, ...]
    misfits: tuple[str, ...]


def search(question: Question, prefill: Iterable[Setup], decode: Iterable[Setup]) -> Search:
    """Match every prefill setup with every decode setup over the question's GPUs.

    A candidate serves the smaller of its pools' rates; ties go to fewer GPUs, then to fewer, larger replicas.
    """
    misfits: dict[Role, tuple[float, str]] = {}
    front = _fitting(question, prefill, misfits)
    back = _fitting(question, decode, misfits)
    pairs = [(p, d) for p in front for d in back]
    # Where none agree, as in a recipe that drafts on decode alone, the recipe has chosen.
    agreed = [(p, d) for p, d in pairs if _handed_over(p) == _handed_over(d)] or pairs
    splits = [_best_split(question, p, d) for p, d in agreed]
    # Working out a candidate's batch takes longer than its rate: only the best few become one.
    splits = sorted((split for split in splits if split.rate_per_s > 0), key=_Split.order)
    distinct = list({split.sizes(): split for split in reversed(splits)}.values())[::-1][:_KEPT]
    found = (match(question, split.prefill, split.decode, split.replicas) for split in distinct)
    candidates = tuple(candidate for candidate in found if candidate is not None)
    return Search(candidates, tuple(message for _, message in misfits.values()))


def _handed_over(pool: Pool) -> tuple[str, int]:
    """What the two sides of a hand-off must have in common, or NIXL refuses each other: KV dtype, and draft layers.

    Source: vllm 0.32.0, kv_connector/v1/nixl/metadata.py, compute_nixl_compatibility_hash.
    """
    return pool.setup.layout.kv_dtype, pool.setup.layout.mtp_tokens


class _Split(NamedTuple):
    """Two setups and the number of prefill replicas with which they serve most; the rest is decode."""

    rate_per_s: float
    prefill: Pool
    decode: Pool
    replicas: int
    num_gpus: int

    def order(self) -> tuple[float, int, float]:
        """Best first: the highest rate, then the fewest GPUs, then the most that prefill has to spare."""
        return -round(self.rate_per_s, 9), self.num_gpus, -self.replicas * self.prefill.prompts_per_s

    def sizes(self) -> tuple[float, Layout, Layout]:
        """What makes two splits one to a reader: rate and layouts, whatever their chunks are."""
        return round(self.rate_per_s, 9), self.prefill.setup.layout, self.decode.setup.layout


def _best_split(question: Question, prefill: Pool, decode: Pool) -> _Split:
    """Of all replica counts the one that serves most, of equals the one with fewest GPUs; rate 0 where none fits."""
    p_gpus, d_gpus = prefill.setup.layout.num_gpus, decode.setup.layout.num_gpus
    answers_per_s = decode.answers_per_s(decode.batch_at(question.tpot_s))
    splits = []
    for replicas in range(1, (question.num_gpus - d_gpus) // p_gpus + 1):
        rest = (question.num_gpus - replicas * p_gpus) // d_gpus
        rate = min(replicas * prefill.prompts_per_s, rest * answers_per_s)
        splits.append(_Split(rate, prefill, decode, replicas, replicas * p_gpus + rest * d_gpus))
    return min(splits, key=_Split.order, default=_Split(0.0, prefill, decode, 0, 0))


def match(
    question: Question, prefill: Pool, decode: Pool, replicas: int, decode_replicas: int | None = None
) -> Candidate | None:
    """Return the candidate of so many prefill replicas and as many decode replicas as the rest holds; None if none."""
    rest = (question.num_gpus - replicas * prefill.setup.layout.num_gpus) // decode.setup.layout.num_gpus
    rest = decode_replicas if decode_replicas is not None else rest
    most = decode.batch_at(question.tpot_s)
    if rest < 1 or most <= 0:
        return None
    prefill, decode = Pool(question, prefill.setup.times(replicas)), _again(decode, rest)
    rate = min(replicas * prefill.prompts_per_s, rest * decode.answers_per_s(most))
    return Candidate(prefill, decode, _batch(decode, rate / rest, most), rate)


def bound_per_gpu(candidate: Candidate) -> float:
    """Return the output tokens a second a GPU if GPUs could be split in any proportion between these two setups."""
    q = candidate.question
    return 1 / (1 / candidate.decode_tokens_per_s_per_gpu + q.isl / q.osl / candidate.prefill_tokens_per_s_per_gpu)


def _fitting(question: Question, setups: Iterable[Setup], misfits: dict[Role, tuple[float, str]]) -> list[Pool]:
    pools = []
    for setup in setups:
        pool = Pool(question, setup)
        try:
            pool.check_fit(question.isl + question.osl if setup.role is Role.DECODE else question.isl)
        except DoesNotFitError as error:
            misfits[setup.role] = max(misfits.get(setup.role, (-math.inf, "")), (pool.room.left_bytes, str(error)))
            continue
        pools.append(pool)
    return pools


def _again(pool: Pool, replicas: int) -> Pool:
    """Return a pool with other replicas and the step times that are known of it."""
    other = Pool(pool.question, pool.setup.times(replicas))
    other.__dict__.update({name: value for name, value in pool.__dict__.items() if name not in ("question", "setup")})
    return other


def _batch(decode: Pool, answers_per_s: float, most: float) -> float:
    """The batch a rank at which a replica gives that many answers a second, by Little's law."""
    low, high = 0.0, most
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if decode.answers_per_s(middle) < answers_per_s else (low, middle)
    return high
