"""A model of prefill and decode ranks in virtual time: what a router's decisions cost, hundreds of sessions a second.

Each rank schedules as vLLM does: first come first served, chunked prefill up to a token budget a step, one token a step
for every running sequence, a prefix cache of whole blocks that evicts the least recently used, KV held by prefill until
decode has fetched it. Step times are of one H200 as a rank of DeepSeek-R1 at DP16/EP16 (`R1_ON_H200`, sources there).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from baton.policy.rank import RankId


@dataclass(frozen=True, kw_only=True, slots=True)
class RankSpeed:
    """What a rank's steps take, and what it holds; times in seconds, lengths in tokens."""

    step_s: float
    """of any decode step"""
    sequence_s: float
    """of a decode step, for each sequence"""
    context_token_s: float
    """of a decode step, for each token of context of its sequences"""
    prefill_step_s: float
    prefill_token_s: float
    prefill_token_context_s: float
    """for each prompt token and each token before it: attention"""
    kv_tokens: int
    block_tokens: int
    max_batched_tokens: int
    max_sequences: int
    transfer_s: float
    transfer_token_s: float


R1_ON_H200 = RankSpeed(
    # 114 ms at 256 sequences of 3,000 tokens is the published 2.2k tokens/s a GPU (vLLM blog, December 2025, wide EP on
    # H200). How it splits follows the roofline of the same rank: weights and all-to-all do not grow with the batch.
    step_s=0.050,
    sequence_s=0.0001,
    context_token_s=50e-9,
    # 7.0k prompt tokens/s a GPU at 2k tokens (vLLM blog, H200 EP16): 143 us a token, of which attention is 9.5 us for
    # each 1,000 tokens of context.
    prefill_step_s=0.010,
    prefill_token_s=133e-6,
    prefill_token_context_s=9.5e-9,
    # 45 GB of KV a GPU at DP16/EP16, 70,272 bytes a token.
    kv_tokens=640_000,
    block_tokens=128,
    max_batched_tokens=8192,
    max_sequences=512,
    # 70,272 bytes a token over one 400 Gb/s NIC at half its rate.
    transfer_s=0.005,
    transfer_token_s=70_272 / 25e9,
)


class Clock:
    """Events in virtual time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, time_s: float, do: Callable[[], None]) -> None:
        """Call `do` at a time; events of one time in the order they were asked for."""
        self._count += 1
        heapq.heappush(self._events, (time_s, self._count, do))

    def run(self, until_s: float) -> None:
        """Run every event up to a time."""
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, do = heapq.heappop(self._events)
            do()


@dataclass(slots=True, eq=False)
class Job:
    """One leg of one request on one rank."""

    chain: Sequence[int]
    """of the whole blocks of its prompt"""
    full_chain: Sequence[int]
    """of the whole blocks of prompt and answer"""
    num_prompt_tokens: int
    num_output_tokens: int
    on_first: Callable[[Job], None] = lambda job: None
    on_done: Callable[[Job], None] = lambda job: None
    remote: Callable[[], None] | None = None
    """decode: what tells prefill that its KV has been fetched; None means that decode computes the prompt"""
    num_cached_tokens: int = 0
    num_done: int = 0
    held: list[int] = field(default_factory=list)
    num_private: int = 0


class PrefixCache:
    """KV room of one rank, in blocks: held by requests, or free but remembered until somebody needs the room."""

    def __init__(self, num_blocks: int, on_stored: Callable[[Sequence[int]], None], on_removed: Callable[[int], None]):
        self._free = num_blocks
        self._refs: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._stored, self._removed = on_stored, on_removed

    def matched(self, chain: Sequence[int]) -> int:
        """Leading blocks that are here."""
        count = 0
        for block in chain:
            if block not in self._refs and block not in self._idle:
                break
            count += 1
        return count

    def take(self, job: Job, num_matched: int, num_blocks: int) -> bool:
        """Room for `num_blocks` of which the first `num_matched` of its chain are here; False if there is none now."""
        matched = job.chain[:num_matched]
        idle = sum(1 for block in matched if block in self._idle)
        if self._free + len(self._idle) - idle < num_blocks - num_matched:
            return False
        for block in matched:
            self._idle.pop(block, None)
            self._refs[block] = self._refs.get(block, 0) + 1
        job.held.extend(matched)
        job.num_private = num_blocks - num_matched
        while self._free < job.num_private:
            block, _ = self._idle.popitem(last=False)
            self._removed(block)
            self._free += 1
        self._free -= job.num_private
        return True

    def store(self, job: Job, chain: Sequence[int]) -> None:
        """The job has computed or fetched these leading blocks of its sequence: others may use them."""
        for block in chain[len(job.held) :]:
            if block in self._refs:  # computed twice: one is enough to remember
                self._refs[block] += 1
                self._free += 1
            elif block in self._idle:
                del self._idle[block]
                self._refs[block] = 1
                self._free += 1
            else:
                self._refs[block] = 1
            job.held.append(block)
            job.num_private -= 1
        self._stored(chain)

    def give_back(self, job: Job) -> None:
        """The job is over; its blocks are remembered, its last ones first to go, as vLLM frees them."""
        for block in reversed(job.held):
            self._refs[block] -= 1
            if not self._refs[block]:
                del self._refs[block]
                self._idle[block] = None
        self._free += job.num_private
        job.held.clear()
        job.num_private = 0


class Rank:
    """One rank; prefill and decode differ in what they are sent."""

    def __init__(
        self,
        rank: RankId,
        clock: Clock,
        speed: RankSpeed,
        on_stored: Callable[[RankId, Sequence[int]], None] = lambda rank, chain: None,
        on_removed: Callable[[RankId, int], None] = lambda rank, block: None,
    ) -> None:
        self.rank, self._clock, self._speed = rank, clock, speed
        blocks = speed.kv_tokens // speed.block_tokens
        self.cache = PrefixCache(blocks, lambda c: on_stored(rank, c), lambda b: on_removed(rank, b))
        self._waiting: deque[Job] = deque()
        self._prefilling: list[Job] = []
        self._joining: list[Job] = []
        self._fresh: list[Job] = []
        self._ends: list[tuple[int, int, Job]] = []
        self._num_running = self._context = self._step = self._num_jobs = 0
        self._stepping = False
        self.busy_s = 0.0

    def submit(self, job: Job) -> None:
        """A request for this rank."""
        self._waiting.append(job)
        self._wake()

    def free(self, job: Job) -> None:
        """Give a job's KV back."""
        self.cache.give_back(job)
        self._wake()

    def fits(self, num_tokens: int) -> bool:
        """Whether a request of this length could ever run here."""
        return num_tokens < self._speed.kv_tokens

    def _wake(self) -> None:
        if not self._stepping:
            self._stepping = True
            self._begin()

    def _admit(self) -> None:
        speed = self._speed
        while self._waiting and self._num_running + len(self._prefilling) < speed.max_sequences:
            job = self._waiting[0]
            matched = min(self.cache.matched(job.chain), (job.num_prompt_tokens - 1) // speed.block_tokens)
            tokens = job.num_prompt_tokens + job.num_output_tokens
            if not self.cache.take(job, matched, -(-tokens // speed.block_tokens)):
                return
            self._waiting.popleft()
            job.num_cached_tokens = job.num_done = matched * speed.block_tokens
            if job.remote is None:
                self._prefilling.append(job)
            else:
                fetched = job.num_prompt_tokens - job.num_done
                after_s = speed.transfer_s + fetched * speed.transfer_token_s
                self._clock.at(self._clock.now_s + after_s, lambda job=job: self._fetched(job))  # type: ignore[misc]

    def _fetched(self, job: Job) -> None:
        assert job.remote is not None
        job.remote()
        self.cache.store(job, job.chain)
        self._joining.append(job)
        self._wake()

    def _begin(self) -> None:
        self._admit()
        speed, chunks, budget = self._speed, [], self._speed.max_batched_tokens
        for job in self._joining:
            self._join(job)
        self._joining.clear()
        took_s = 0.0
        if self._num_running:
            took_s = speed.step_s + self._num_running * speed.sequence_s + self._context * speed.context_token_s
            budget -= self._num_running
        for job in self._prefilling:
            chunk = min(budget, job.num_prompt_tokens - job.num_done)
            if chunk <= 0:
                break
            budget -= chunk
            middle = job.num_done + chunk / 2
            took_s += chunk * (speed.prefill_token_s + middle * speed.prefill_token_context_s)
            chunks.append((job, chunk))
        if not self._num_running and not chunks:
            self._stepping = False
            return
        if not self._num_running:
            took_s += speed.prefill_step_s
        self.busy_s += took_s
        self._clock.at(self._clock.now_s + took_s, lambda: self._end(chunks))

    def _join(self, job: Job) -> None:
        self._num_jobs += 1
        self._num_running += 1
        self._context += job.num_prompt_tokens
        self._fresh.append(job)  # its first token comes with the step that begins now
        heapq.heappush(self._ends, (self._step + job.num_output_tokens, self._num_jobs, job))

    def _end(self, chunks: list[tuple[Job, int]]) -> None:
        self._step += 1
        self._context += self._num_running
        for job in self._fresh:
            job.on_first(job)
        self._fresh.clear()
        while self._ends and self._ends[0][0] <= self._step:
            job = heapq.heappop(self._ends)[2]
            self._num_running -= 1
            self._context -= job.num_prompt_tokens + job.num_output_tokens
            self._finish(job)
        for job, chunk in chunks:
            job.num_done += chunk
            self.cache.store(job, job.chain[: job.num_done // self._speed.block_tokens])
            if job.num_done >= job.num_prompt_tokens:
                self._prefilling.remove(job)
                self._prefilled(job)
        self._begin()

    def _prefilled(self, job: Job) -> None:
        """A prompt is computed, and its first token with it."""
        job.on_first(job)
        if job.num_output_tokens <= 1:
            job.on_done(job)
            return
        self._num_jobs += 1
        self._num_running += 1
        self._context += job.num_prompt_tokens + 1
        heapq.heappush(self._ends, (self._step + job.num_output_tokens - 1, self._num_jobs, job))

    def _finish(self, job: Job) -> None:
        self.cache.store(job, job.full_chain)
        self.cache.give_back(job)
        job.on_done(job)
