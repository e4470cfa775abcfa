"""One policy over one workload on modelled ranks, in virtual time; the same seed gives the same digest."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from trace import Recorded, Session, nominal_times_s
from typing import Any

from routing_ranks import Clock, Job, Rank, RankSpeed

from baton.policy.prefix_index import PrefixIndex
from baton.policy.rank import Pair, RankId
from baton.policy.routing import Ask


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What is run: the pools, what the router is told, how long."""

    speed: RankSpeed
    num_prefill: int = 4
    num_decode: int = 4
    events: bool = False
    """the index is fed by the ranks' cache events; else the router knows only what it has sent where"""
    session_header: bool = False
    """clients name their session"""
    warmup_s: float = 900.0
    measured_s: float = 1500.0
    drain_s: float = 300.0


@dataclass(slots=True)
class Record:
    """One request as the client saw it."""

    at_s: float
    num_prompt_tokens: int
    num_output_tokens: int
    turn: int
    ttft_s: float = float("inf")
    tpot_s: float = float("inf")
    num_cached_tokens: int = 0
    prefill: str = ""
    decode: str = ""
    local: bool = False
    predicted_s: float = 0.0


@dataclass(slots=True)
class Outcome:
    """A run's records inside the measured time, and how busy each rank was over the whole run."""

    records: list[Record]
    busy_s: dict[str, float] = field(default_factory=dict)
    num_events: int = 0

    def digest(self) -> str:
        """The same for the same seed and code."""
        text = "\n".join(f"{r.at_s:.9f} {r.ttft_s:.9f} {r.tpot_s:.9f} {r.prefill} {r.decode}" for r in self.records)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


RouterMaker = Callable[[PrefixIndex, Setting], Any]


class Simulation:
    """Drives a router as the gateway does: reserve, prefill leg, decode leg, release."""

    def __init__(self, sessions: Sequence[Session | Recorded], make_router: RouterMaker, setting: Setting) -> None:
        self.setting, self.clock = setting, Clock()
        # Twice the prefill ranks' room: less forgets what is there, more remembers what has long gone.
        index = PrefixIndex(max_blocks=2 * setting.num_prefill * setting.speed.kv_tokens // setting.speed.block_tokens)
        feed: dict[str, Any] = {}
        if setting.events:
            feed["on_stored"] = index.stored
            feed["on_removed"] = lambda rank, block: index.removed(rank, (block,))
        prefill = [RankId(f"prefill-{n}", 0) for n in range(setting.num_prefill)]
        decode = [RankId(f"decode-{n}", 0) for n in range(setting.num_decode)]
        self.ranks = {rank: Rank(rank, self.clock, setting.speed, **feed) for rank in prefill + decode}
        self.router = make_router(index, setting)
        self.router.set_pairs([Pair(p, d) for p in prefill for d in decode])
        self.records: list[Record] = []
        for session in sessions:
            self.clock.at(session.start_s, lambda session=session: self._turn(session, 0))  # type: ignore[misc]

    def run(self) -> Outcome:
        """All of it."""
        setting = self.setting
        until_s = setting.warmup_s + setting.measured_s
        self.clock.run(until_s + setting.drain_s)
        kept = [record for record in self.records if setting.warmup_s <= record.at_s < until_s]
        return Outcome(kept, {rank.worker: model.busy_s for rank, model in self.ranks.items()})

    def _turn(self, session: Session | Recorded, number: int) -> None:
        now_s, turn = self.clock.now_s, session.turns[number]
        num_tokens, block = session.prompt_tokens(number), self.setting.speed.block_tokens
        chain = session.chain(num_tokens, block)
        record = Record(now_s, num_tokens, turn.output_tokens, number)
        self.records.append(record)
        ask = Ask(
            num_prompt_tokens=num_tokens,
            max_output_tokens=None,
            chain=chain,
            tokens_per_block=float(block),
            session=f"session-{session.number}" if self.setting.session_header else "",
        )
        held = self.router.reserve(ask, now_s)
        assert held is not None
        full = session.chain(num_tokens + turn.output_tokens, block)

        def ended(job: Job) -> None:
            now_s = self.clock.now_s
            first_s = record.at_s + record.ttft_s
            record.tpot_s = (now_s - first_s) / max(turn.output_tokens - 1, 1)
            self.router.release(held, now_s, num_output_tokens=turn.output_tokens, completed=True)
            if number + 1 < len(session.turns):
                later_s = now_s + session.turns[number + 1].think_s
                self.clock.at(later_s, lambda: self._turn(session, number + 1))

        def first(job: Job) -> None:
            record.ttft_s = self.clock.now_s - record.at_s
            self.router.decoding(held, self.clock.now_s)
            if held.local:
                record.num_cached_tokens = job.num_cached_tokens

        decode_leg = Job(chain, full, num_tokens, turn.output_tokens, on_first=first, on_done=ended)
        record.local = held.local
        if held.local:
            record.decode = held.pair.decode.worker
            self.ranks[held.pair.decode].submit(decode_leg)
            return

        def prefilled(job: Job) -> None:
            record.num_cached_tokens = job.num_cached_tokens
            record.prefill = held.pair.prefill.worker
            self.router.prefilled(held, self.clock.now_s, num_tokens, job.num_cached_tokens)
            record.decode = held.pair.decode.worker
            decode_leg.remote = lambda: self.ranks[RankId(record.prefill, 0)].free(job)
            self.ranks[held.pair.decode].submit(decode_leg)

        self.ranks[held.pair.prefill].submit(Job(chain, chain, num_tokens, 1, on_first=prefilled))


def demand(
    sessions: Sequence[Session | Recorded], speed: RankSpeed, num_prefill: int, num_decode: int, span_s: float
) -> float:
    """Share of the pools' time that a workload needs, of the busier side, if every session kept to one rank of each.

    Prefill: a cache for each rank, sessions dealt out evenly, nobody waiting. Decode: batches as large as the arrivals
    make them, up to what the KV room holds.
    """
    room = speed.kv_tokens // speed.block_tokens
    caches: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(num_prefill)]
    requests = sorted(
        ((at_s, s, n) for s in sessions for n, at_s in enumerate(nominal_times_s(s))), key=lambda request: request[0]
    )
    work_s = out_tokens = contexts = count = 0.0
    for at_s, session, number in requests:
        num_tokens = session.prompt_tokens(number)
        chain = session.chain(num_tokens + session.turns[number].output_tokens, speed.block_tokens)
        cache = caches[session.number % num_prefill]
        prompt, matched, leading = num_tokens // speed.block_tokens, 0, True
        for n, block in enumerate(chain):
            if block in cache:
                matched += leading and n < prompt
                cache.move_to_end(block)
            else:
                leading = False
                cache[block] = None
        while len(cache) > room:
            cache.popitem(last=False)
        if not span_s / 3 <= at_s < span_s:
            continue
        cached = matched * speed.block_tokens
        middle = (cached + num_tokens) / 2
        work_s += (num_tokens - cached) * (speed.prefill_token_s + middle * speed.prefill_token_context_s)
        output = session.turns[number].output_tokens
        out_tokens, count = out_tokens + output, count + 1
        contexts += output * (num_tokens + output / 2)
    measured_s = span_s * 2 / 3
    prefill = work_s / measured_s / num_prefill
    tokens_per_s, context = out_tokens / measured_s / num_decode, contexts / max(out_tokens, 1)
    # A batch of N sequences makes N tokens each step_s + N * per_sequence_s.
    per_sequence_s = speed.sequence_s + context * speed.context_token_s
    most = speed.kv_tokens / context
    best_per_s = most / (speed.step_s + most * per_sequence_s)
    return max(prefill, tokens_per_s / best_per_s)
