"""How good are the router's decisions? Ours beside three published rules, on the same sessions and the same ranks.

Four prefill and four decode ranks, each a model of one H200 as a rank of DeepSeek-R1 (routing_ranks.py), in virtual
time; sessions of several turns over shared prefixes (trace.py), open loop at several loads. Load is the share of the
pools' time that the sessions would need if each kept to one rank of each side (routing_sim.demand). The rules compared
with, and their sources: routing_policies.py. Deterministic: the digest printed is the same for the same seed and code.

    python benchmarks/routing.py                     # the table of results/routing.md; minutes on two cores
    python benchmarks/routing.py --seeds 1 --loads 0.8 --workloads conversation
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from trace import MOONCAKE_BLOCK_TOKENS, WORKLOADS, Recorded, Session, generate, recorded
from typing import TypeVar

from routing_policies import KvCost, LeastLoaded, RoundRobin, ours
from routing_ranks import R1_ON_H200
from routing_sim import Outcome, RouterMaker, Setting, Simulation, demand

Arrival = TypeVar("Arrival", Session, Session | Recorded)

OURS = "baton"
POLICIES: dict[str, RouterMaker] = {
    OURS: ours,
    "baton, local": lambda index, setting: ours(index, setting, prefill_locally=True),
    "round-robin": lambda index, setting: RoundRobin(),
    "least-loaded": lambda index, setting: LeastLoaded(),
    "kv-cost": lambda index, setting: KvCost(index, learns=not setting.events),
    "kv-cost-decay": lambda index, setting: KvCost(index, learns=not setting.events, decay=1.0),
}
LOADS = {"conversation": (0.3, 0.5, 0.7), "agent": (0.3, 0.5, 0.7), "reasoning": (0.5, 0.8, 0.95)}
"""prefill limits the first two, and no policy that moves sessions at all can give them all that demand assumes"""

TTFT_S, TPOT_S = 4.0, 0.1
"""goodput counts requests within both: a prompt of 18,000 uncached tokens takes 4 s here, an idle decode step 0.05 s"""


HEAD = """# Routing quality

Written by `python benchmarks/routing.py` (Python {python}, seeds {seeds}): a simulation in virtual time, no engine
and no GPU. 4 prefill and 4 decode ranks, each as one H200 of DeepSeek-R1 at DP16/EP16: published rates, 640,000 tokens
of KV (`routing_ranks.R1_ON_H200`). Sessions: `trace.py`. Open loop; load: share of the pools' time that is needed if
every session kept to one rank. Goodput: TTFT <= {ttft_s:g} s and TPOT <= {tpot_ms:g} ms. Figures: median of the seeds
(lowest-highest); ratios are theirs / ours, the median over seeds: TTFT above 1 is worse, goodput below 1 is worse.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One run."""

    workload: str
    load: float
    seed: int
    policy: str
    events: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Figures:
    """What one run came to; times in seconds."""

    hit: float
    ttft_p50: float
    ttft_p90: float
    ttft_p99: float
    tpot_p50: float
    tpot_p90: float
    goodput_per_s: float
    good: float
    spread_prefill: float
    spread_decode: float
    local: float
    num_requests: float


def figures(outcome: Outcome, measured_s: float) -> Figures:
    """Reduce a run; a request that never ended counts, with no end, in every percentile."""
    records = outcome.records
    ttfts, tpots = sorted(r.ttft_s for r in records), sorted(r.tpot_s for r in records)
    good = sum(r.ttft_s <= TTFT_S and r.tpot_s <= TPOT_S for r in records)

    def spread(role: str) -> float:
        busy = [seconds for rank, seconds in outcome.busy_s.items() if rank.startswith(role)]
        return max(busy) / statistics.mean(busy)

    return Figures(
        hit=sum(r.num_cached_tokens for r in records) / sum(r.num_prompt_tokens for r in records),
        ttft_p50=percentile(ttfts, 0.5),
        ttft_p90=percentile(ttfts, 0.9),
        ttft_p99=percentile(ttfts, 0.99),
        tpot_p50=percentile(tpots, 0.5),
        tpot_p90=percentile(tpots, 0.9),
        goodput_per_s=good / measured_s,
        good=good / len(records),
        spread_prefill=spread("prefill"),
        spread_decode=spread("decode"),
        local=sum(r.local for r in records) / len(records),
        num_requests=len(records),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


@lru_cache(maxsize=4)
def sessions_of(workload: str, load: float, seed: int) -> tuple[Session | Recorded, ...]:
    """Sessions whose demand is `load`."""
    setting = setting_of(workload, events=False)
    span_s = setting.warmup_s + setting.measured_s

    def arriving(rate_per_s: float) -> Sequence[Session | Recorded]:
        if workload in WORKLOADS:
            return generate(WORKLOADS[workload], seed, rate_per_s, span_s)
        with Path(workload).open(encoding="utf-8") as lines:
            return recorded(lines, rate_per_s, span_s)

    return tuple(demanding(arriving, load, setting))


def demanding(arriving: Callable[[float], Sequence[Arrival]], load: float, setting: Setting) -> Sequence[Arrival]:
    """Sessions whose demand is `load`, found by halving the interval of arrival rates."""

    def needed(rate_per_s: float) -> float:
        span_s = setting.warmup_s + setting.measured_s
        return demand(arriving(rate_per_s), setting.speed, setting.num_prefill, setting.num_decode, span_s)

    low, high = 0.05, 0.4
    while needed(high) < load:
        low, high = high, 2 * high
    for _ in range(6):
        middle = (low + high) / 2
        low, high = (middle, high) if needed(middle) < load else (low, middle)
    return arriving((low + high) / 2)


def setting_of(workload: str, *, events: bool) -> Setting:
    """What a workload is run on; a recorded trace decides the length of blocks."""
    block = R1_ON_H200.block_tokens if workload in WORKLOADS else MOONCAKE_BLOCK_TOKENS
    return Setting(speed=dataclasses.replace(R1_ON_H200, block_tokens=block), events=events)


def run(case: Case) -> tuple[Case, Figures, str]:
    """One run, in a process of its own."""
    setting = setting_of(case.workload, events=case.events)
    sessions = sessions_of(case.workload, case.load, case.seed)
    outcome = Simulation(sessions, POLICIES[case.policy], setting).run()
    return case, figures(outcome, setting.measured_s), outcome.digest()


COLUMNS: tuple[tuple[str, str, float, str], ...] = (
    ("hit", "hit tokens %", 100, ".1f"),
    ("ttft_p50", "TTFT p50 s", 1, ".2f"),
    ("ttft_p90", "p90", 1, ".2f"),
    ("ttft_p99", "p99", 1, ".1f"),
    ("tpot_p50", "TPOT p50 ms", 1000, ".0f"),
    ("tpot_p90", "p90", 1000, ".0f"),
    ("goodput_per_s", "goodput req/s", 1, ".2f"),
    ("good", "of all %", 100, ".1f"),
    ("spread_prefill", "max/mean prefill", 1, ".2f"),
    ("spread_decode", "decode", 1, ".2f"),
    ("local", "one leg %", 100, ".0f"),
)


def table(rows: dict[str, list[Figures]]) -> str:
    """One load: a row a policy, each figure the median of the seeds with their range, then ratios to ours."""
    head = ["policy", *(title for _, title, _, _ in COLUMNS), "TTFT p50 / ours", "p90 / ours", "goodput / ours"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for policy, runs in rows.items():
        cells = [policy]
        for name, _, scale, form in COLUMNS:
            values = sorted(scale * getattr(figure, name) for figure in runs)
            shown = format(statistics.median(values), form)
            cells.append(f"{shown} ({values[0]:{form}}-{values[-1]:{form}})" if len(values) > 1 else shown)
        for name in ("ttft_p50", "ttft_p90", "goodput_per_s"):
            ratios = [
                getattr(theirs, name) / getattr(mine, name)
                for theirs, mine in zip(runs, rows.get(OURS, runs), strict=True)
                if getattr(mine, name) and math.isfinite(getattr(mine, name))
            ]
            cells.append(f"{statistics.median(ratios):.2f}" if ratios else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def numbers(kind: Callable[[str], float]) -> Callable[[str], list[float]]:
    return lambda text: [kind(part) for part in text.split(",")]


def main() -> None:
    """Run every case, print conditions, tables and the digest of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workloads", type=lambda text: text.split(","), default=list(WORKLOADS), help="names, or files of Mooncake's"
    )
    parser.add_argument("--loads", type=numbers(float), default=None, help="of every workload")
    parser.add_argument("--seeds", type=numbers(int), default=[1, 2, 3])
    parser.add_argument("--policies", type=lambda text: text.split(";"), default=list(POLICIES))
    parser.add_argument("--events", action="store_true", help="routers are told what ranks store and evict")
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args()
    began_s = time.monotonic()
    cases = [
        Case(workload, load, seed, policy, chosen.events)
        for workload in chosen.workloads
        for load in chosen.loads or LOADS.get(workload, (0.5,))
        for seed in chosen.seeds
        for policy in chosen.policies
    ]
    with ProcessPoolExecutor(chosen.jobs) as pool:
        done = {case: (found, digest) for case, found, digest in pool.map(run, cases, chunksize=len(chosen.policies))}
    print(HEAD.format(python=platform.python_version(), seeds=chosen.seeds, ttft_s=TTFT_S, tpot_ms=1000 * TPOT_S))
    print(f"The index is fed by {'cache events of the ranks' if chosen.events else 'what was sent where'}.")
    for workload in chosen.workloads:
        for load in chosen.loads or LOADS.get(workload, (0.5,)):
            rows = {
                policy: [done[Case(workload, load, seed, policy, chosen.events)][0] for seed in chosen.seeds]
                for policy in chosen.policies
            }
            rate = (
                statistics.median(f.num_requests for f in rows[chosen.policies[0]])
                / Setting(speed=R1_ON_H200).measured_s
            )
            print(f"\n### {workload}, load {100 * load:.0f} %: {rate:.2f} requests/s\n\n{table(rows)}")
    whole = hashlib.sha256("".join(digest for _, digest in done.values()).encode()).hexdigest()[:16]
    print(f"\ndigest {whole}, {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
