"""A generated workload of multi-turn sessions over shared prefixes: seeded, the same bytes for the same seed.

Sessions arrive as a Poisson process. Each starts with one of a few shared documents (system prompts, files, tool
descriptions; Zipf popularity) or with none, then grows by what the user says and what the model answered. The next turn
comes a think time after the answer has ended, so a slow system is asked later, as by people.

Lengths follow the conversation trace of Mooncake's FAST'25 release (12,031 requests of one hour; Apache-2.0,
github.com/kvcache-ai/Mooncake, folder FAST25-release): mean input 12,035 tokens (median 6,909, p90 27,367), mean output
343 (median 350, p90 597), 123 s (quartiles 66 and 264) from one turn to the next. Two things are not that trace's: its
sessions are cut off by its hour (1.5 turns seen; here 4 on average), and it shares nothing between sessions but a
first block, while the shared documents here stand for system prompts and files (as in its tool-and-agent trace, where
they are over half of the input).

    python benchmarks/trace.py --seed 1 --sessions-per-s 0.8 --duration-s 1800 > trace.jsonl

writes Mooncake's format: one request a line, {timestamp in ms, input_length, output_length, hash_ids of 512-token
blocks}. With --sessions, AIPerf's multi-turn form: session_id, delay in ms after the answer, lengths of what is new.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

MOONCAKE_BLOCK_TOKENS = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What sessions look like; lengths in tokens, medians and sigmas of log-normal distributions."""

    name: str = "conversation"
    num_documents: int = 48
    zipf: float = 1.0
    document_share: float = 0.7
    """of sessions that start with a shared document"""
    document_median: float = 3000.0
    document_sigma: float = 0.9
    first_median: float = 2500.0
    """what the user brings to the first turn, on top of the document"""
    first_sigma: float = 1.2
    next_median: float = 120.0
    next_sigma: float = 1.8
    """later turns: most are a line, some a pasted file"""
    mean_turns: float = 4.0
    short_answers: float = 0.25
    """of answers that are a few words; the others are log-normal"""
    answer_median: float = 420.0
    answer_sigma: float = 0.35
    think_median_s: float = 110.0
    think_sigma: float = 1.0
    max_context: int = 65536


CONVERSATION = Workload()
AGENT = Workload(
    name="agent",
    num_documents=16,
    zipf=1.2,
    document_share=1.0,
    document_median=6000.0,
    document_sigma=0.5,
    first_median=400.0,
    next_median=500.0,
    next_sigma=1.2,
    mean_turns=8.0,
    short_answers=0.4,
    answer_median=220.0,
    think_median_s=8.0,
)
"""Tools in a loop: one of few long system prompts, short pauses, short answers; lengths as in Mooncake's tool-and-agent
trace (mean input 8,596, mean output 182)."""

REASONING = Workload(
    name="reasoning",
    document_median=800.0,
    document_sigma=0.5,
    first_median=500.0,
    first_sigma=0.9,
    next_median=80.0,
    next_sigma=1.2,
    mean_turns=3.0,
    short_answers=0.0,
    answer_median=1700.0,
    answer_sigma=0.6,
)
"""Short prompts, long answers: about 2,000 tokens in and 2,000 out, as vLLM's published wide-EP runs; decode is what
limits."""

WORKLOADS = {workload.name: workload for workload in (CONVERSATION, AGENT, REASONING)}


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a session: what is new in its prompt, how long its answer is, the pause before it."""

    new_tokens: int
    output_tokens: int
    think_s: float


@dataclass(frozen=True, slots=True)
class Session:
    """One conversation; `document` is -1 where it starts with none."""

    number: int
    start_s: float
    document: int
    document_tokens: int
    turns: tuple[Turn, ...]

    def prompt_tokens(self, turn: int) -> int:
        """Length of the prompt of a turn: everything before it, answers included, and what is new."""
        before = sum(t.new_tokens + t.output_tokens for t in self.turns[:turn])
        return self.document_tokens + before + self.turns[turn].new_tokens

    def chain(self, num_tokens: int, block_tokens: int) -> list[int]:
        """Ids of the whole blocks of this session's first `num_tokens`; equal ids mean equal blocks and prefixes."""
        shared = min(self.document_tokens, num_tokens) // block_tokens
        own = (1 << 60) | self.number << 24
        return [self.document << 24 | n for n in range(shared)] + [
            own | n for n in range(shared, num_tokens // block_tokens)
        ]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request of a Mooncake trace, in a Session's place: a single turn at a fixed time."""

    number: int
    start_s: float
    input_tokens: int
    hash_ids: tuple[int, ...]
    turns: tuple[Turn, ...]

    def prompt_tokens(self, turn: int) -> int:
        """Length of the prompt."""
        return self.input_tokens

    def chain(self, num_tokens: int, block_tokens: int) -> list[int]:
        """The trace's own ids of whole blocks of the prompt, then ids of the answer's.

        Raises   ValueError for blocks of another length than the trace's
        """
        if block_tokens != MOONCAKE_BLOCK_TOKENS:
            raise ValueError(f"blocks of {block_tokens} tokens: the trace has ids of {MOONCAKE_BLOCK_TOKENS} only")
        known = min(num_tokens, self.input_tokens) // block_tokens
        own = (1 << 60) | self.number << 24
        return [*self.hash_ids[:known], *(own | n for n in range(known, num_tokens // block_tokens))]


def recorded(lines: Iterable[str], per_s: float, duration_s: float) -> list[Recorded]:
    """The requests of a Mooncake trace, its time stretched so that `per_s` come a second, cut at `duration_s`."""
    requests = [json.loads(line) for line in lines]
    stretch = len(requests) / (requests[-1]["timestamp"] / 1000) / per_s
    return [
        Recorded(
            number,
            request["timestamp"] / 1000 * stretch,
            request["input_length"],
            tuple(request["hash_ids"]),
            (Turn(request["input_length"], max(request["output_length"], 1), 0.0),),
        )
        for number, request in enumerate(requests)
        if request["timestamp"] / 1000 * stretch < duration_s
    ]


def generate(workload: Workload, seed: int, sessions_per_s: float, duration_s: float) -> list[Session]:
    """Sessions that start within `duration_s`; the same seed gives the same sessions at every rate, sooner or later."""
    chance = Random(f"{workload.name}-{seed}")
    median, sigma = workload.document_median, workload.document_sigma
    documents = [_lengths(chance, median, sigma) for _ in range(workload.num_documents)]
    weights = [1 / (rank + 1) ** workload.zipf for rank in range(workload.num_documents)]
    sessions: list[Session] = []
    start_s = chance.expovariate(1.0) / sessions_per_s
    while start_s < duration_s:
        document = -1
        if chance.random() < workload.document_share:
            document = chance.choices(range(workload.num_documents), weights)[0]
        tokens = documents[document] if document >= 0 else 0
        turns = tuple(_turns(workload, chance, tokens))
        sessions.append(Session(len(sessions), start_s, document, tokens, turns))
        start_s += chance.expovariate(1.0) / sessions_per_s
    return sessions


def _turns(workload: Workload, chance: Random, context: int) -> Iterator[Turn]:
    first = True
    while True:
        median, sigma = (
            (workload.first_median, workload.first_sigma) if first else (workload.next_median, workload.next_sigma)
        )
        new = _lengths(chance, median, sigma)
        if chance.random() < workload.short_answers:
            output = chance.randint(8, 150)
        else:
            output = _lengths(chance, workload.answer_median, workload.answer_sigma)
        think_s = 0.0 if first else chance.lognormvariate(math.log(workload.think_median_s), workload.think_sigma)
        last = chance.random() < 1 / workload.mean_turns
        new = min(new, workload.max_context - context - output) if first else new
        context += new + output
        if context > workload.max_context:
            return
        yield Turn(new, output, think_s)
        if last:
            return
        first = False


def _lengths(chance: Random, median: float, sigma: float) -> int:
    return max(8, min(32768, round(chance.lognormvariate(math.log(median), sigma))))


def nominal_times_s(session: Session | Recorded, ttft_s: float = 2.0, tpot_s: float = 0.07) -> list[float]:
    """When each turn comes if every answer takes its nominal time; what a trace with fixed times must assume."""
    at_s, times = session.start_s, []
    for turn in session.turns:
        at_s += turn.think_s
        times.append(at_s)
        at_s += ttft_s + tpot_s * turn.output_tokens
    return times


def mooncake_lines(sessions: list[Session], block_tokens: int = MOONCAKE_BLOCK_TOKENS) -> Iterator[str]:
    """The trace as self-contained requests in order of time, ids renumbered from 0 as Mooncake does."""
    requests = [(at_s, session, turn) for session in sessions for turn, at_s in enumerate(nominal_times_s(session))]
    ids: dict[int, int] = {}
    for at_s, session, turn in sorted(requests, key=lambda request: request[0]):
        tokens = session.prompt_tokens(turn)
        chain = session.chain(tokens, block_tokens)
        if tokens % block_tokens:  # the last, partial block has an id of its own there
            chain.append((1 << 61) | session.number << 24 | turn)
        yield json.dumps(
            {
                "timestamp": round(1000 * at_s),
                "input_length": tokens,
                "output_length": session.turns[turn].output_tokens,
                "hash_ids": [ids.setdefault(block, len(ids)) for block in chain],
            }
        )


def session_lines(sessions: list[Session]) -> Iterator[str]:
    """The trace as AIPerf's sessions: a first line with its time, later lines with the pause after the answer.

    AIPerf puts the history before each turn by itself, so lengths are of what is new.
    """
    for session in sessions:
        for number, turn in enumerate(session.turns):
            first = number == 0
            when = {"timestamp": round(1000 * session.start_s)} if first else {"delay": round(1000 * turn.think_s)}
            new = turn.new_tokens + (session.document_tokens if first else 0)
            lengths = {"input_length": new, "output_length": turn.output_tokens}
            yield json.dumps({"session_id": f"session-{session.number}", **when, **lengths})


def main() -> None:
    """Write a trace to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=WORKLOADS, default="conversation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sessions-per-s", type=float, default=0.8)
    parser.add_argument("--duration-s", type=float, default=1800)
    parser.add_argument("--sessions", action="store_true")
    chosen = parser.parse_args()
    sessions = generate(WORKLOADS[chosen.workload], chosen.seed, chosen.sessions_per_s, chosen.duration_s)
    for line in session_lines(sessions) if chosen.sessions else mooncake_lines(sessions):
        print(line)


if __name__ == "__main__":
    main()
