"""The search: every pair of prefill and decode setups that fits the GPUs, rate-matched, and the best of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from baton.perf.transfer import transfer_s
from baton.plan.pool import DoesNotFitError, Pool
from baton.plan.question import Question
from baton.plan.setup import Setup
from baton.recipe.recipe import Role


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
    found = [
        candidate
        for p in front
        for d in back
        for replicas in range(1, (question.num_gpus - d.setup.num_gpus) // p.setup.num_gpus + 1)
        if (candidate := match(question, p, d, replicas)) is not None
    ]
    found.sort(
        key=lambda one: (
            -round(one.rate_per_s, 9),
            one.num_gpus,
            one.prefill.setup.replicas + one.decode.setup.replicas,
        )
    )
    # Spare replicas of a pool that does not bind add nothing: of equals, one.
    distinct = {
        (round(one.rate_per_s, 9), one.prefill.setup.layout, one.decode.setup.layout): one for one in reversed(found)
    }
    return Search(tuple(reversed(distinct.values())), tuple(message for _, message in misfits.values()))


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
