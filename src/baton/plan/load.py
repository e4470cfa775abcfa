"""A candidate under load: what queues in both pools make of its TTFT and TPOT, and the rate that limits allow."""

from __future__ import annotations

import math
from dataclasses import dataclass

from baton.perf.cost import total_s
from baton.perf.decode_queue import DecodePool
from baton.perf.max_rate import max_rate
from baton.perf.prefill_queue import PrefillPool
from baton.perf.queueing import NEVER, Quantiles
from baton.perf.transfer import transfer_s
from baton.plan.search import Candidate

_SHARE = 0.9
"""of the rate-matched rate, where neither a rate nor a limit on TTFT is given: a pool without slack has no latency"""


@dataclass(frozen=True, slots=True)
class Load:
    """What requests see at `rate_per_s`; `limit`: what keeps the rate from being larger.

    ttft_s: prefill with its queue, hand-off, and admission to decode with the first step, each at its percentile, which
    is at most what their sum would have there.
    """

    rate_per_s: float
    tokens_per_s_per_gpu: float
    ttft_s: Quantiles
    tpot_s: Quantiles
    limit: str


def under_load(candidate: Candidate) -> Load:
    """Return a candidate's latencies at the question's rate, at the most its limits allow, or at 90 % of its own rate.

    The tokens are those of all GPUs the question gives. A rate that cannot be served has infinite latencies.
    """
    question = candidate.question
    prefill, decode = _prefill(candidate), _decode(candidate)
    first_s = transfer_s(candidate.prefill.rank, question.isl) + candidate.decode.decode_step_s(candidate.batch)
    limit = candidate.binds
    if question.rate_per_s is not None:
        rate = question.rate_per_s
    elif question.ttft_s is not None:
        found = max_rate(
            prefill,
            decode,
            ttft_s=question.ttft_s,
            tpot_s=question.tpot_s or math.inf,
            percentile=question.percentile,
            handoff_s=first_s,
        )
        rate, limit = found.rate_per_s, found.binds
    else:
        rate = _SHARE * candidate.rate_per_s
    front, back = prefill.at(rate), decode.at(rate)
    ttft = _sum(front.ttft_s, back.admission_s, first_s)
    return Load(rate, rate * question.osl / question.num_gpus, ttft, back.tpot_s, limit)


def _prefill(candidate: Candidate) -> PrefillPool:
    question, pool = candidate.question, candidate.prefill
    layout = pool.setup.layout
    return PrefillPool(
        num_ranks=layout.dp_size * pool.setup.replicas,
        lengths=question.lengths,
        step_s=lambda tokens, isl: total_s(pool.rank.prefill(tokens, isl, question.hit_rate * isl)),
        max_batched_tokens=pool.setup.max_num_batched_tokens,
        arrival_cv2=question.arrival_cv2,
        hit_rate=question.hit_rate,
        lockstep_group=layout.dp_size,
    )


def _decode(candidate: Candidate) -> DecodePool:
    question, pool = candidate.question, candidate.decode
    layout = pool.setup.layout
    return DecodePool(
        num_ranks=layout.dp_size * pool.setup.replicas,
        lengths=question.lengths,
        step_s=lambda batch, context: total_s(pool.rank.decode(max(batch, 1e-3), context)),
        max_batch=pool.setup.max_num_seqs,
        kv_tokens=pool.room.kv_tokens,
        arrival_cv2=question.arrival_cv2,
        lockstep_group=layout.dp_size,
        tokens_a_step=layout.tokens_a_step,
    )


def _sum(a: Quantiles, b: Quantiles, c_s: float) -> Quantiles:
    if NEVER in (a, b):
        return NEVER
    return Quantiles(a.p50_s + b.p50_s + c_s, a.p90_s + b.p90_s + c_s, a.p99_s + b.p99_s + c_s)
