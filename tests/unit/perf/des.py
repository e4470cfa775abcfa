"""Discrete-event simulations of a prefill and a decode pool, step by step and request by request: what formulas must
match.

No shortcuts and nothing of baton in it but the interface: queues are queues, a group's step lasts as long as its
slowest
rank, and every request is routed on its own.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

Pair = tuple[int, int, float]
Step = Callable[[float, float], float]


def gaps_s(rng: random.Random, rate_per_s: float, cv2: float) -> Iterator[float]:
    """Renewal gaps: hyperexponential with balanced means above a CV2 of 1, exponential at 1, gamma below."""
    if cv2 > 1:
        first = (1 + ((cv2 - 1) / (cv2 + 1)) ** 0.5) / 2
        while True:
            share = first if rng.random() < first else 1 - first
            yield rng.expovariate(2 * share * rate_per_s)
    while True:
        yield rng.expovariate(rate_per_s) if cv2 == 1 else rng.gammavariate(1 / cv2, cv2 / rate_per_s)


def drawn(rng: random.Random, pairs: Sequence[Pair]) -> Iterator[tuple[int, int]]:
    """(isl, osl) of one request after the other."""
    sums = list(accumulate(weight for _, _, weight in pairs))
    while True:
        isl, osl, _ = pairs[bisect(sums, rng.random() * sums[-1])]
        yield isl, osl


@dataclass
class Prompt:
    arrived_s: float
    tokens: float
    isl: float
    started_s: float = -1.0


@dataclass
class Group:
    """Ranks that step together: each one's waiting prompts, its tokens that are not done, and what ends with this
    step.
    """

    queues: list[deque[Prompt]]
    loads: list[float]
    taken: list[float]
    ending: list[Prompt] = field(default_factory=list)
    is_busy: bool = False


def prefill(
    *, seed: int, rate_per_s: float, num_ranks: int, pairs: Sequence[Pair], step_s: Step, max_batched_tokens: int,
    arrival_cv2: float = 1.0, lockstep_group: int = 1, num_requests: int = 20_000,
) -> tuple[list[float], list[float]]:  # fmt: skip
    """TTFT and queue wait of every request after the first tenth.

    A request joins the rank with the lowest 4 x waiting + running, in tokens.
    """
    rng = random.Random(seed)
    gaps, sizes = gaps_s(rng, rate_per_s, arrival_cv2), drawn(rng, pairs)
    groups = [
        Group([deque() for _ in range(lockstep_group)], [0.0] * lockstep_group, [0.0] * lockstep_group)
        for _ in range(num_ranks // lockstep_group)
    ]
    ends: list[tuple[float, int]] = []
    ttfts, waits = [], []

    def start(index: int, now_s: float) -> None:
        group, longest = groups[index], 0.0
        group.taken, group.ending = [], []
        for queue in group.queues:
            room, weighted = float(max_batched_tokens), 0.0
            while queue and room > 0:
                prompt = queue[0]
                if prompt.started_s < 0:
                    prompt.started_s = now_s
                part = min(room, prompt.tokens)
                prompt.tokens -= part
                room -= part
                weighted += part * prompt.isl
                if prompt.tokens <= 0:
                    group.ending.append(queue.popleft())
            done = max_batched_tokens - room
            group.taken.append(done)
            if done:
                longest = max(longest, step_s(done, weighted / done))
        group.is_busy = longest > 0
        if group.is_busy:
            heapq.heappush(ends, (now_s + longest, index))

    now_s = 0.0
    for number in range(num_requests):
        now_s += next(gaps)
        while ends and ends[0][0] <= now_s:
            end_s, index = heapq.heappop(ends)
            group = groups[index]
            group.loads = [load - done for load, done in zip(group.loads, group.taken, strict=True)]
            if number > num_requests // 10:
                ttfts += [end_s - one.arrived_s for one in group.ending]
                waits += [one.started_s - one.arrived_s for one in group.ending]
            start(index, end_s)
        isl, _ = next(sizes)
        tokens = float(isl)
        _, _, _, index, rank = min(
            (4 * load - 3 * group.taken[rank], sum(group.loads), rng.random(), index, rank)
            for index, group in enumerate(groups)
            for rank, load in enumerate(group.loads)
        )
        groups[index].queues[rank].append(Prompt(now_s, tokens, isl))
        groups[index].loads[rank] += tokens
        if not groups[index].is_busy:
            start(index, now_s)
    return sorted(ttfts), sorted(waits)


@dataclass
class DecodeRank:
    """Running requests by the step they end with, (isl, osl, start) of those that wait, and tokens of KV that are
    held.
    """

    running: list[tuple[int, int, float, int, int]] = field(default_factory=list)
    waiting: deque[tuple[int, int, float]] = field(default_factory=deque)
    kv_tokens: float = 0.0
    promised: float = 0.0


def decode(
    *, seed: int, rate_per_s: float, num_ranks: int, pairs: Sequence[Pair], step_s: Step, max_batch: int,
    kv_tokens: float, arrival_cv2: float = 1.0, lockstep_group: int = 1, num_requests: int = 5_000,
) -> tuple[list[float], list[float], float]:  # fmt: skip
    """TPOT and admission wait of every request after the first fifth, and the mean batch of a rank.

    A request joins the rank with the fewest requests; it is admitted at a step's start while the mean KV of those
    that run
    (isl + osl / 2 each) and its own fit.
    """
    rng = random.Random(seed)
    gaps, sizes = gaps_s(rng, rate_per_s, arrival_cv2), drawn(rng, pairs)
    groups = [[DecodeRank() for _ in range(lockstep_group)] for _ in range(num_ranks // lockstep_group)]
    steps, is_busy = [0] * len(groups), [False] * len(groups)
    ends: list[tuple[float, int]] = []
    tpots: list[float] = []
    waits: list[float] = []
    areas = [0.0, 0.0]
    serial = 0

    def start(index: int, now_s: float, keep: bool) -> None:
        nonlocal serial
        longest, running = 0.0, 0
        for rank in groups[index]:
            while rank.waiting and len(rank.running) < max_batch:
                isl, osl, arrived_s = rank.waiting[0]
                if rank.running and rank.promised + isl + osl / 2 > kv_tokens:
                    break
                rank.waiting.popleft()
                rank.promised += isl + osl / 2
                rank.kv_tokens += isl
                serial += 1
                heapq.heappush(rank.running, (steps[index] + osl, serial, now_s, isl, osl))
                if keep:
                    waits.append(now_s - arrived_s)
            batch = len(rank.running)
            running += batch
            if batch:
                longest = max(longest, step_s(batch, rank.kv_tokens / batch))
                rank.kv_tokens += batch
        is_busy[index] = longest > 0
        if keep:
            areas[0] += running * longest
        if longest:
            steps[index] += 1
            heapq.heappush(ends, (now_s + longest, index))

    def end(index: int, now_s: float, keep: bool) -> None:
        for rank in groups[index]:
            while rank.running and rank.running[0][0] <= steps[index]:
                _, _, started_s, isl, osl = heapq.heappop(rank.running)
                rank.kv_tokens -= isl + osl
                rank.promised -= isl + osl / 2
                if keep:
                    tpots.append((now_s - started_s) / osl)
        start(index, now_s, keep)

    now_s = began_s = 0.0
    for number in range(num_requests):
        now_s += next(gaps)
        keep = number > num_requests // 5
        began_s = began_s or (now_s if keep else 0.0)
        while ends and ends[0][0] <= now_s:
            end_s, index = heapq.heappop(ends)
            end(index, end_s, keep)
        isl, osl = next(sizes)
        _, _, index, rank = min(
            (len(one.running) + len(one.waiting), rng.random(), index, rank)
            for index, group in enumerate(groups)
            for rank, one in enumerate(group)
        )
        groups[index][rank].waiting.append((isl, osl, now_s))
        if not is_busy[index]:
            start(index, now_s, keep)
    return sorted(tpots), sorted(waits), areas[0] / (now_s - began_s) / num_ranks


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of an ordered sample is not above."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
